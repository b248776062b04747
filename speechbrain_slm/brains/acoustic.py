"""The Brain that trains what predicts a codec's acoustic codes."""

from typing import Any

import numpy as np
import speechbrain as sb
import torch
from torch.nn.utils.rnn import pad_sequence

from speechbrain_slm.brains.vocoder import VocoderBrain, told_of
from speechbrain_slm.models.vocoders.acoustic import code_loss
from speechbrain_slm.models.vocoders.conditioning import Durations
from speechbrain_slm.units.spoken import Spoken


class AcousticBrain(VocoderBrain):
    """Learn the codes that the codec itself gives to speech."""

    def measure(self) -> None:
        """Measure nothing: codes are what they are."""

    def target(self, one: Spoken) -> torch.Tensor:
        """Return the codes of all codebooks, ``[F, Q]``."""
        return torch.from_numpy(one.codes)

    def collate(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Make a batch of utterances, padded.

        ``codes``, ``[B, F, Q]``, ``lengths``, ``speakers`` and ``languages``,
        ``[B]``; of de-duplicated units also ``runs`` and ``durations``,
        ``[B, U]``.
        """
        examples = [self.cached(int(number)) for number in rows[:, 0]]
        codes = [one["target"] for one in examples]
        batch = {"codes": pad_sequence(codes, batch_first=True)}
        batch["lengths"] = torch.tensor([len(one) for one in codes])
        return batch | told_of(examples, self.vocoder.deduplicated)

    def scored(self, batch: dict) -> int:
        """Count the frames."""
        return int(batch["lengths"].sum())

    def compute_forward(self, batch: dict, stage: sb.Stage) -> Any:
        """Return logits, ``[B, Q - 1, F, size]``, and log durations."""
        return self.modules.generator(
            batch["codes"].transpose(1, 2),
            batch["lengths"],
            batch["speakers"],
            self.told_languages(batch, stage),
            batch.get("runs"),
        )

    def compute_objectives(
        self, predictions: Any, batch: dict, stage: sb.Stage
    ) -> torch.Tensor:
        """Return the cross-entropy of a code, in nats, and of durations."""
        logits, log_durations = predictions
        codes = batch["codes"].transpose(1, 2)
        loss = code_loss(logits, codes, batch["lengths"])
        if log_durations is not None and stage == sb.Stage.TRAIN:
            told = batch["durations"], batch["lengths"]
            loss = loss + Durations.loss(log_durations, *told)
        return loss
