"""The Brain that prefers one ending to another: DPO on units.

Direct preference optimisation (Rafailov et al., "Direct Preference
Optimization: Your Language Model is Secretly a Reward Model", NeurIPS 2023,
equation 7): of a prompt x, a chosen ending y and a rejected one z,

    loss = -log sigmoid(beta * margin)
    margin = log p(y|x) / r(y|x) - log p(z|x) / r(z|x)

with the model p that is trained and the frozen reference r that it started
from. Label smoothing takes a share of the pairs to be the wrong way round
(Mitchell, "A note on DPO with noisy preferences & relationship to IPO", 2023);
the SFT term adds the chosen ending's mean negative log-likelihood a unit
(Pang et al., "Iterative Reasoning Preference Optimization", NeurIPS 2024).
"""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import speechbrain as sb
import torch
from torch.nn.functional import cross_entropy, logsigmoid

from speechbrain_slm.brains.lm import IGNORED, LMBrain
from speechbrain_slm.brains.model_card import NO_SCORES, SCORES, with_section
from speechbrain_slm.brains.parallel import sum_over_ranks
from speechbrain_slm.evaluation.cloze.evaluate import score_parts
from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer
from speechbrain_slm.models.attention import open_inputs
from speechbrain_slm.models.decoder import flops_per_token
from speechbrain_slm.models.export import CARD, save_speech_lm
from speechbrain_slm.models.folder import tokenizer_of, vocoder_of
from speechbrain_slm.units.tokenizers.base import saved_files
from speechbrain_slm.utils.distributed import world_size
from speechbrain_slm.utils.jobs import claim
from speechbrain_slm.utils.pieces import read_piece
from speechbrain_slm.utils.ranges import RANGES, check_value

if TYPE_CHECKING:
    from speechbrain_slm.brains.preference_plan import PairPlan

logger = logging.getLogger(__name__)
_CARD = """
## Preference optimisation

The model of the weights `{model}` was trained further to prefer one ending of a
story to another (DPO): {plan.num_steps:,} steps of {plan.rows_per_step} pairs,
{passes:.2g} passes over {pairs:,} pairs (`{plan.pairs.identity}`), seed
{plan.seed}, {settings}.
"""
# What decides the loss, of a YAML file.
SETTINGS = ("beta", "label_smoothing", "sft_weight")


def dpo_losses(
    margins: torch.Tensor, beta: float, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return the losses of pairs, in nats, of their margins ``[B]``.

    Example
    -------
    >>> dpo_losses(torch.tensor([0.0, 20.0]), beta=0.1)
    tensor([0.6931, 0.1269])
    """
    for_it = logsigmoid(beta * margins) * (1 - label_smoothing)
    return -for_it - logsigmoid(-beta * margins) * label_smoothing


class PreferenceBrain(LMBrain):
    """Train an exported LM on a :class:`PairPlan`.

    ``hparams`` holds, beside what :class:`LMBrain` reads, ``beta``,
    ``label_smoothing`` and ``sft_weight``; ``model_folder``, which training
    begins with and whose tokenizer and card go on, and ``start``, its identity;
    and ``batch_tokens``, ``share_prompts`` and ``pairs_per_shard`` of the
    reference's scores. These are taken once, shared by the ranks, kept under
    ``output_folder/reference``, and found again by a resumed run.
    """

    plan: Any  # a PairPlan

    def fit(
        self,
        train_plan: Any,
        valid_sets: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Train until a PairPlan's last step; ``valid_sets`` name its rows."""
        for name in SETTINGS:
            check_value(name, getattr(self.hparams, name), RANGES[name])
        # A row is one story, with nothing to block.
        self.hparams.attention = "open"
        self._reference = self._score_reference(train_plan)
        super().fit(train_plan, valid_sets)

    def flops_per_token(self) -> float | None:
        """Return the operations a token costs, forward and backward."""
        return flops_per_token(self.hparams.model, self.plan.width)

    def _score_reference(self, plan: "PairPlan") -> torch.Tensor:
        """Return how much likelier each chosen ending is at the start, [N]."""
        hparams, pairs = self.hparams, plan.pairs
        scorer = LikelihoodScorer(
            hparams.model.eval(),
            *(plan.vocabulary_size, plan.boundary, hparams.batch_tokens),
            language_tags=plan.language_tags,
            share_prompts=hparams.share_prompts,
        )
        # A prompt's two endings stand together, so that it is computed once.
        both = zip(pairs.chosen, pairs.rejected, strict=True)
        sides = [side for pair in both for side in pair]
        names = [f"pair '{name}'" for name in pairs.names for _ in "cr"]
        request = {"start": hparams.start, "pairs": pairs.identity}
        request["precision"] = self.precision
        folder = Path(hparams.output_folder) / "reference"
        began = time.time()
        # In the precision of training: else the first margins are noise.
        with claim(folder), self.training_ctx:
            size = hparams.pairs_per_shard
            paths = score_parts(sides, names, scorer, folder, request, size)
        found = pa.concat_tables(
            read_piece(path, ["ending_sum"]).table for path in paths
        )
        logs = found["ending_sum"].to_numpy().reshape(-1, 2)
        seconds = time.time() - began
        logger.info("Reference: %d endings in %.1f s", 2 * len(logs), seconds)
        return torch.from_numpy(logs[:, 0] - logs[:, 1])

    def collate(self, rows: np.ndarray) -> dict:
        """Return what the model takes of pairs ``[B]``, targets and more.

        The first half of the rows of ``input_ids`` are chosen; ``reference``
        holds the margins of the reference, ``[B]``.
        """
        symbols, targets = self.plan.tokens(rows)
        batch = {
            "input_ids": torch.from_numpy(symbols),
            "labels": torch.from_numpy(targets),
            "reference": self._reference[torch.from_numpy(rows)].float(),
        }
        # Padding stands behind, where nothing that counts looks.
        return batch | (open_inputs(symbols.shape[1]) if self._maskless else {})

    def filled(self, rows: np.ndarray, number: int) -> np.ndarray:
        """Add pairs of padding, up to a number."""
        return np.pad(rows, (0, number - len(rows)), constant_values=-1)

    def scored(self, batch: dict) -> int:
        """Count the pairs."""
        chosen, _ = batch["labels"].chunk(2)
        return int((chosen != IGNORED).any(1).sum())

    def compute_forward(self, batch: dict, stage: sb.Stage) -> torch.Tensor:
        """Return next-unit logits, ``[2 B, T, symbols]``."""
        batch = {name: batch[name] for name in batch if name != "reference"}
        return super().compute_forward(batch, stage)

    def compute_objectives(
        self, predictions: torch.Tensor, batch: dict, stage: sb.Stage
    ) -> torch.Tensor:
        """Return the mean loss of the pairs; of none it is 0."""
        labels, hparams = batch["labels"], self.hparams
        costs = cross_entropy(
            predictions.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="none",
        )
        logs = -costs.view_as(labels)
        chosen, rejected = logs.sum(1).chunk(2)
        units = (labels != IGNORED).sum(1).chunk(2)[0]
        is_pair = units > 0
        margins = chosen - rejected - batch["reference"]
        settings = hparams.beta, hparams.label_smoothing
        losses = dpo_losses(margins, *settings)
        losses = losses - hparams.sft_weight * chosen / units.clamp(min=1)
        if stage == sb.Stage.VALID:
            right = (chosen > rejected) & is_pair
            self._held_out += torch.stack([right.sum(), is_pair.sum()])
        return (losses * is_pair).sum() / is_pair.sum().clamp(min=1)

    @torch.no_grad()
    def valid_losses(
        self, valid_sets: dict[str, np.ndarray]
    ) -> dict[str, float]:
        """Return each set's loss, and the accuracy of its pairs.

        That is the share whose chosen ending is likelier than the rejected one.
        """
        losses: dict[str, float] = {}
        for name, rows in valid_sets.items():
            self._held_out = torch.zeros(
                2, device=self.device, dtype=torch.int64
            )
            # As many rows on every rank: none counts one for another.
            number = -(-len(rows) // world_size()) * world_size()
            losses |= super().valid_losses({name: self.filled(rows, number)})
            right, count = sum_over_ranks(self._held_out).tolist()
            losses[f"{name} accuracy"] = right / count
        return losses

    def _save_model(self, folder: Path, whole: Any) -> None:
        """Save the model with what goes with the one that it began as."""
        start, units = Path(self.hparams.model_folder), self.plan.units
        tokenizer, files = tokenizer_of(start, units), None
        if tokenizer is not None:
            files = saved_files(tokenizer, units["tokenizer_identity"])
        card = start / CARD
        text = card.read_text("utf-8") if card.is_file() else ""
        # Those of before are another model's.
        text = with_section(text, SCORES, NO_SCORES)
        what = units, files, text + self._card(), vocoder_of(start, units)
        save_speech_lm(folder, whole, *what)

    def _card(self) -> str:
        settings = [
            f"{name} {getattr(self.hparams, name):g}" for name in SETTINGS
        ]
        plan = self.plan
        return _CARD.format(
            plan=plan,
            pairs=len(plan.train),
            settings=", ".join(settings),
            passes=plan.num_steps * plan.rows_per_step / len(plan.train),
            **self.hparams.start,
        )

    def identity(self) -> dict:
        """Name what a resumed run must share, the model's start included."""
        settings = {name: getattr(self.hparams, name) for name in SETTINGS}
        return {**super().identity(), "start": self.hparams.start, **settings}
