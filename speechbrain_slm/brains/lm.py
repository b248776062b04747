"""The Brain that pretrains a decoder LM on units."""

import logging
import os
import shutil
import time
from pathlib import Path

import torch

from speechbrain_slm.brains.base import StepBrain
from speechbrain_slm.models.export import save_speech_lm
from speechbrain_slm.utils.atomic import write_json
from speechbrain_slm.utils.distributed import barrier, is_main

logger = logging.getLogger(__name__)


class LMBrain(StepBrain):
    """Next-unit prediction with a Hugging Face causal LM.

    ``modules`` holds ``model``. At the end of ``fit``, ``output_folder`` gets
    ``model/`` (a Hugging Face folder with ``units.json`` beside the weights)
    and ``run.json`` (what the run has seen).
    """

    def compute_forward(self, batch, stage):
        """Return next-unit scores.

        Arguments
        ---------
        batch : torch.Tensor
            Tokens, ``[B, T]``.
        stage : speechbrain.Stage
            Not used.

        Returns
        -------
        torch.Tensor
            Logits, ``[B, T, vocabulary]``.
        """
        return self.modules.model(input_ids=batch, use_cache=False).logits

    def compute_objectives(self, predictions, batch, stage):
        """Return the mean negative log-likelihood in nats a token.

        The first token of a row has no context and is not scored.

        Arguments
        ---------
        predictions : torch.Tensor
            Logits, ``[B, T, vocabulary]``.
        batch : torch.Tensor
            Tokens, ``[B, T]``.
        stage : speechbrain.Stage
            Not used.

        Returns
        -------
        torch.Tensor
            A scalar.
        """
        return torch.nn.functional.cross_entropy(
            predictions[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten()
        )

    def fit(self, train_plan, valid_sets=None, progressbar=None):
        """Train until the plan's last step; see :class:`StepBrain`.

        Arguments
        ---------
        train_plan : speechbrain_slm.dataio.plan.TokenPlan
            What to train on.
        valid_sets : dict, optional
            Name -> rows, int64 ``[N, row_length]``.
        progressbar : bool, optional
            Shown on the main process unless ``--noprogressbar`` is given.

        Raises
        ------
        ValueError
            If the model has not one embedding for each symbol of the plan.
        """
        embeddings = self.modules.model.get_input_embeddings().num_embeddings
        symbols = train_plan.boundary + 1
        if embeddings != symbols:
            raise ValueError(
                f"The model has {embeddings} embeddings; the units have "
                f"{train_plan.boundary} symbols and the story boundary is one "
                f"more. Set vocabulary_size to {train_plan.boundary}."
            )
        train_plan.log_summary()
        super().fit(train_plan, valid_sets, progressbar)

    def identity(self):
        """Name what a resumed run must share, the model's shape included.

        Returns
        -------
        dict
            See :class:`StepBrain`.
        """
        config = self.hparams.model.config.to_diff_dict()
        config.pop("transformers_version", None)
        model = {key: str(value) for key, value in config.items()}
        return {**super().identity(), "model": model}

    def on_fit_end(self):
        """Export the model and say what the run has seen."""
        if self.num_steps < self.plan.num_steps:
            logger.info("Stopped early: no model is exported.")
            return
        folder = Path(self.hparams.output_folder)
        trained = self._start[1] < self.num_steps
        if is_main() and (trained or not (folder / "run.json").exists()):
            self._export(folder)
        barrier()

    def _export(self, folder):
        units = {
            "tokenizer_identity": self.plan.store.identity,
            "vocabulary_size": self.plan.store.vocabulary_size,
            "boundary": self.plan.boundary,
        }
        model = self.hparams.model
        # run.json stands for a complete export: it goes first and comes last.
        (folder / "run.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "model", ignore_errors=True)
        save_speech_lm(folder / "model", model, units)
        began, first = self._start
        write_json(
            folder / "run.json",
            {
                "tokens": self.plan.count(self.num_steps),
                "steps": self.num_steps,
                "parameters": model.num_parameters(),
                # Of the last session: a resumed run trained longer.
                "seconds": round(time.time() - began, 1),
                "seconds_from_step": first,
                "processors": os.cpu_count(),
                "identity": self.identity(),
            },
        )
