"""The Brain that pretrains a decoder LM on units."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_broadcast

from speechbrain_slm.brains.base import StepBrain
from speechbrain_slm.brains.model_card import model_card
from speechbrain_slm.brains.samples import AudioSamples, write_audio
from speechbrain_slm.brains.snapshots import Snapshots
from speechbrain_slm.brains.state import check_finite, whole_weights
from speechbrain_slm.dataio.plan import OTHERS
from speechbrain_slm.models.attention import (
    block_attention,
    blocked_inputs,
    open_attention,
    open_inputs,
)
from speechbrain_slm.models.decoder import flops_per_token
from speechbrain_slm.models.export import (
    UNITS_FIELDS,
    refuse_foreign_model,
    save_speech_lm,
)
from speechbrain_slm.models.folder import (
    TOKENIZER,
    below_bpe,
    check_vocoder,
)
from speechbrain_slm.units.tokenizers.base import saved_files, told_of
from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.distributed import barrier, is_main
from speechbrain_slm.utils.numbers import check_choice

if TYPE_CHECKING:
    from speechbrain_slm.dataio.plan import TokenPlan

logger = logging.getLogger(__name__)
RUN_JSON = "run.json"
IGNORED = -100  # targets that the loss passes over


class LMBrain(StepBrain):
    """Next-unit prediction with a Hugging Face causal LM.

    ``modules`` holds ``model``; ``hparams`` holds ``attention`` beside what
    :class:`StepBrain` reads: ``open``, or ``blocked`` between the stories of a
    row; and may hold ``vocoder_folder``, what speaks the units, and
    ``audio_samples``, how much it speaks at validation, and
    ``snapshot_steps``, after which the model is exported to
    ``snapshots/step-*/``, too. At the end of ``fit``, ``output_folder`` gets
    ``model/`` (a Hugging Face folder with the tokenizer, the vocoder and a
    model card beside the weights) and ``run.json`` (what the run has seen).
    """

    _places = 0  # for the documents of a micro-batch
    _maskless = False  # whether open attention needs no mask
    _samples: AudioSamples | None = None

    def collate(self, rows: np.ndarray) -> dict:
        """Return what the model takes, and ``labels``, of rows ``[B, T]``.

        Labels are the next symbols, with -100 behind the last one and where
        the row is padded (a boundary after a boundary).
        """
        tokens = torch.from_numpy(rows)
        labels = torch.full_like(tokens, IGNORED)
        labels[:, :-1] = tokens[:, 1:]
        boundary = self.plan.boundary
        # With boundary 9, [9, 4, 9, 9, 9] is a story and padding: it is scored
        # for 4 and for the 9 that ends it, not for the two after that.
        labels[(tokens == boundary) & (labels == boundary)] = IGNORED
        batch = {"input_ids": tokens, "labels": labels}
        if self.hparams.attention == "blocked":
            batch.update(blocked_inputs(tokens, boundary, self._places))
            # What there was room for once stays: one shape, one graph.
            self._places = len(batch["cu_seq_lens_q"]) - 1
        elif self._maskless:
            batch.update(open_inputs(rows.shape[1]))
        return batch

    def filled(self, rows: np.ndarray, number: int) -> np.ndarray:
        """Add rows of padding, up to a number."""
        rest = ((0, number - len(rows)), (0, 0))
        return np.pad(rows, rest, constant_values=self.plan.boundary)

    def scored(self, batch: dict) -> int:
        """Count the positions whose next symbol is scored."""
        return int((batch["labels"] != IGNORED).sum())

    def compute_forward(self, batch: dict, stage: sb.Stage) -> torch.Tensor:
        """Return next-unit logits, ``[B, T, symbols]``."""
        inputs = {name: batch[name] for name in batch if name != "labels"}
        return self.modules.model(**inputs, use_cache=False).logits

    def compute_objectives(
        self, predictions: torch.Tensor, batch: dict, stage: sb.Stage
    ) -> torch.Tensor:
        """Return the mean negative log-likelihood in nats a scored position.

        ``predictions`` are logits, ``[B, T, symbols]``. The first token of a
        row has no context and is not scored; where nothing is, it is 0.
        """
        labels = batch["labels"].flatten()
        total = torch.nn.functional.cross_entropy(
            predictions.flatten(0, 1).float(),
            labels,
            ignore_index=IGNORED,
            reduction="sum",
        )
        # The mean over no position would be NaN.
        return total / (labels != IGNORED).sum().clamp(min=1)

    def fit(
        self,
        train_plan: "TokenPlan",
        valid_sets: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Train until the plan's last step; see :meth:`StepBrain.fit`.

        Refuses a model without one embedding for each symbol of the plan.
        """
        attention, model = self.hparams.attention, self.hparams.model
        check_choice("attention", attention, ("open", "blocked"))
        embeddings = model.get_input_embeddings().num_embeddings
        if embeddings != train_plan.num_symbols:
            size, tags = train_plan.vocabulary_size, [*train_plan.language_tags]
            and_tags = f", and the model's language_tags to {tags}"
            raise ValueError(
                f"The model has {embeddings} embeddings; the units have {size} "
                f"symbols, the story boundary is one more, and {len(tags)} are "
                f"language tags. Set vocabulary_size to {size}"
                f"{and_tags if tags else ''}."
            )
        if attention == "blocked":
            block_attention(model)
        else:
            self._maskless = open_attention(model)
        self._snapshots = Snapshots(self.hparams, train_plan.num_steps)
        if is_main():
            self._refuse_foreign(Path(self.hparams.output_folder))
        self.plan = train_plan
        self._samples = self._audio_samples()
        train_plan.log_summary()
        super().fit(train_plan, valid_sets)

    def _refuse_foreign(self, folder: Path) -> None:
        """Refuse what is not ours in the way now, not after the training."""
        for model in (folder / "model", *self._snapshots.there()):
            refuse_foreign_model(model)
        path, ours = folder / RUN_JSON, False
        with contextlib.suppress(ValueError, TypeError):
            ours = not path.exists() or "identity" in read_json(path)
        if not ours:
            raise FileExistsError(
                f"{path} stands where this run would write, and is of no "
                "training. It stays as it is: choose another output_folder, or "
                "move it out of the way."
            )

    def flops_per_token(self) -> float | None:
        """Return the operations a token costs, forward and backward."""
        return flops_per_token(self.hparams.model, self.plan.row_length)

    def identity(self) -> dict:
        """Name what a resumed run must share, the model's shape included."""
        return {
            **super().identity(),
            "attention": self.hparams.attention,
            "model": self._configuration,
        }

    @cached_property
    def _configuration(self) -> dict[str, str]:
        # As at the start: transformers adds to it where a snapshot is saved.
        config = self.hparams.model.config.to_diff_dict()
        config.pop("transformers_version", None)
        return {key: str(value) for key, value in config.items()}

    def on_fit_start(self) -> None:
        """Start, or resume, with snapshots as they are to be then."""
        super().on_fit_start()
        self._snapshots.begin(self.optimizer_step)

    def on_step(self) -> None:
        """Export the model where a snapshot is due."""
        if (folder := self._snapshots.due(self.optimizer_step)) is None:
            return
        weights = whole_weights(self.hparams.model)
        if is_main():
            save_speech_lm(folder, self._whole(weights), self._units({}))
        barrier()

    def on_fit_end(self) -> None:
        """Export the model and say what the run has seen."""
        if self.num_steps < self.plan.num_steps:
            logger.info("Stopped early: no model is exported.")
            return
        folder = Path(self.hparams.output_folder)
        trained = self.monitor.first < self.num_steps
        # Other nodes may not see the main one's files.
        if ddp_broadcast(trained or not (folder / RUN_JSON).exists()):
            # Every rank gives its slices; the main one writes.
            weights = whole_weights(self.hparams.model)
            if is_main():
                self._export(folder, weights)
        barrier()

    def _whole(self, weights: dict) -> Any:
        """Return the model as something that is saved with all weights."""
        check_finite(weights, "model")
        # What it is under FSDP has slices of weights alone.
        save = self.hparams.model.save_pretrained
        return SimpleNamespace(
            save_pretrained=partial(save, state_dict=weights)
        )

    def _export(self, folder: Path, weights: dict) -> None:
        whole = self._whole(weights)
        # run.json stands for a complete export: it goes first and comes last.
        (folder / RUN_JSON).unlink(missing_ok=True)
        refuse_foreign_model(folder / "model")
        shutil.rmtree(folder / "model", ignore_errors=True)
        self._save_model(folder / "model", whole)
        seen = {step: self.plan.count(step) for step in self._snapshots.folders}
        write_json(
            folder / RUN_JSON,
            {
                "tokens": self.plan.count(self.num_steps),
                **({"snapshots": seen} if seen else {}),
                "sources": self.plan.statistics(self.num_steps),
                "steps": self.num_steps,
                "parameters": self.hparams.model.num_parameters(),
                # Of the last session: a resumed run trained longer.
                "seconds": round(time.time() - self.monitor.began, 1),
                "seconds_from_step": self.monitor.first,
                "processors": os.cpu_count(),
                "identity": self.identity(),
            },
        )

    def _save_model(self, folder: Path, whole: Any) -> None:
        """Save a model, which has all weights, with what goes with it."""
        plan, model = self.plan, self.hparams.model
        source = plan.units_folder / TOKENIZER
        identity = plan.tokenizer_identity
        tokenizer = _or_without("tokenizer", saved_files, source, identity)
        if not tokenizer:
            logger.warning(
                "%s is not what made the units: %s goes without its tokenizer. "
                "Keep the one that made them beside it.",
                *(source, folder),
            )
        vocoder = _or_without("vocoder", self._vocoder_folder)
        units = self._units(told_of(source) if tokenizer else {})
        known = (plan, model, self.hparams, units, bool(vocoder))
        card = _or_without("card", model_card, *known)
        save_speech_lm(folder, whole, units, tokenizer, card, vocoder)

    def _units(self, told: dict) -> dict:
        """Say what the units are, and how the model was trained on them."""
        plan = self.plan
        return {
            **{key: getattr(plan, key) for key in UNITS_FIELDS},
            "languages": sorted(plan.count(self.num_steps).keys() - OTHERS),
            "frame_rate": plan.tokenizer["frame_rate"],
            "deduplicated": plan.tokenizer["deduplicated"],
            "tokenizer": plan.tokenizer["config"],
            "row_length": plan.row_length,
            "attention": self.hparams.attention,
            **told,
        }

    def _audio_samples(self) -> AudioSamples | None:
        folder = self._vocoder_folder()
        number = getattr(self.hparams, "audio_samples", 0)
        if folder is None or not number:
            return None
        told = self.plan, folder, number, self.hparams.seed
        return AudioSamples(*told, str(self.device), speak=is_main())

    def on_validation(self, valid_sets: dict[str, np.ndarray]) -> None:
        """Let the model speak, where there is what speaks its units."""
        if self._samples is None:
            return
        eager: Any = contextlib.nullcontext()
        if self.compile:
            # Each new length would be compiled.
            eager = torch.compiler.set_stance("force_eager")
        self.modules.eval()
        with torch.no_grad(), self.evaluation_ctx, eager:
            found = [
                *self._samples.continuations(self.hparams.model, valid_sets)
            ]
        self.modules.train()
        if not is_main():
            return
        name = f"samples/step-{self.optimizer_step:08d}"
        folder = Path(self.hparams.output_folder) / name
        for name, symbols in found:
            try:
                sound = self._samples.speak(symbols)
                write_audio(folder / f"{name}.flac", *sound)
            except Exception as error:
                logger.warning("No audio sample %s: %s", name, error)
                continue
            told = self.optimizer_step, f"samples/{name}"
            self.monitor.add_audio(*told, *sound)

    def _vocoder_folder(self) -> str | None:
        """Return where the vocoder is, refused if it speaks other units."""
        folder = getattr(self.hparams, "vocoder_folder", None)
        if folder is not None:
            told = {"tokenizer_identity": self.plan.tokenizer_identity}
            check_vocoder(folder, below_bpe(self.plan.units_folder, told))
        return folder


def _or_without(name: str, make: Callable, *arguments: object) -> Any:
    """Make what goes with a model; it never stands in the model's way."""
    try:
        return make(*arguments)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
        logger.warning("The model goes without its %s: %s", name, fault)
        return None
