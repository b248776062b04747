"""The Brain that trains a unit HiFi-GAN against its discriminators."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.core import rm_vector_weight_decay

from speechbrain_slm.brains.parallel import sum_over_ranks
from speechbrain_slm.brains.vocoder import VocoderBrain, told_of
from speechbrain_slm.models.vocoders.conditioning import Durations
from speechbrain_slm.units.spoken import Spoken
from speechbrain_slm.utils.distributed import world_size

TRAIN = sb.Stage.TRAIN


class HifiganBrain(VocoderBrain):
    """In each step the discriminators learn first, then the generator.

    ``modules`` holds ``discriminator``; ``hparams`` holds, beside what
    :class:`VocoderBrain` reads, ``segment_frames`` (of each utterance, from a
    place drawn by seed and epoch), and SpeechBrain's ``generator_loss`` and
    ``discriminator_loss``.
    """

    def init_optimizers(self) -> None:
        """Make an optimizer for each of the two."""
        self.optimizers_dict = {}
        for name in ("generator", "discriminator"):
            module = self.modules[name]
            if self.remove_vector_weight_decay:
                parameters = rm_vector_weight_decay(module)
            else:
                parameters = module.parameters()
            optimizer = self.opt_class(parameters)
            self.optimizers_dict[name] = optimizer
            if self.checkpointer is not None:
                named = f"{name}_optimizer"
                self.checkpointer.add_recoverable(named, optimizer)
        self.optimizer = self.optimizers_dict["generator"]

    def measure(self) -> None:
        """Measure nothing: waveforms are what they are."""

    def identity(self) -> dict:
        """Name what a resumed run must share, segments and losses included."""
        weights = vars(self.hparams.generator_loss).items()
        told = {k: v for k, v in weights if k.endswith("_loss_weight")}
        told["segment_frames"] = self.hparams.segment_frames
        return {**super().identity(), **told}

    def target(self, one: Spoken) -> torch.Tensor:
        """Return what is to be said, a waveform."""
        return one.wav

    def collate(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Cut a segment out of each utterance.

        ``units`` of each frame, ``[B, F]``, ``wavs``, ``[B, T]``, ``speakers``
        and ``languages``, ``[B]``; of de-duplicated units also those of the
        whole utterances, ``runs``, and their ``durations``, ``[B, U]``.
        """
        size = self.hparams.segment_frames
        hop = self.vocoder.network.samples_per_frame
        examples = [self.cached(int(number)) for number in rows[:, 0]]
        units, wavs = [], []
        for row, one in zip(rows, examples, strict=True):
            frames = np.repeat(one["units"].numpy(), one["durations"].numpy())
            # Validation, whose rows have no epoch, is always the same.
            key = [self.hparams.seed, *row.tolist()]
            spare = max(0, len(frames) - size)
            begin = int(np.random.default_rng(key).integers(spare + 1))
            cut = frames[begin : begin + size]
            wav = one["target"][begin * hop : (begin + size) * hop]
            # A short one ends in silence.
            units.append(np.pad(cut, (0, size - len(cut)), "edge"))
            missing = size * hop - len(wav)
            wavs.append(torch.nn.functional.pad(wav, (0, missing)))
        batch = {"units": torch.from_numpy(np.stack(units))}
        batch["wavs"] = torch.stack(wavs)
        return batch | told_of(examples, self.vocoder.deduplicated)

    def scored(self, batch: dict) -> int:
        """Count the frames."""
        return batch["units"].numel()

    def fit_step(self, parts: list[tuple[Any, int]]) -> None:
        """Run one step of both over what ``prepare`` returned."""
        self.begin_step()
        found = self.accumulate(parts, self.discriminator_objective)
        self.update(self.optimizers_dict["discriminator"], found)
        self._discriminator_loss += found
        with self._frozen_discriminator():
            total = self.accumulate(parts, self.objective)
        self.optimizers_step(total)
        self._loss += total
        self._steps += 1

    def discriminator_objective(self, batch: dict) -> torch.Tensor:
        """Return the loss of telling what is made from what was spoken."""
        with torch.no_grad():
            made, _ = self.compute_forward(batch, TRAIN)
        # In one call: DDP expects one before each backward.
        both = torch.cat([made, batch["wavs"][:, None]])
        scores, _ = self.modules.discriminator(both)
        pairs = [score.chunk(2) for score in scores]
        fake, real = map(list, zip(*pairs, strict=True))
        return self.hparams.discriminator_loss(fake, real)["D_loss"]

    @contextlib.contextmanager
    def _frozen_discriminator(self) -> Iterator[None]:
        """Let it judge, but not learn, and keep DDP out of it."""
        discriminator = self.modules.discriminator
        self._judge = getattr(discriminator, "module", discriminator)
        discriminator.requires_grad_(False)
        try:
            yield
        finally:
            discriminator.requires_grad_(True)

    def compute_forward(
        self, batch: dict, stage: sb.Stage
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return waveforms, ``[B, 1, T]``, and log durations, ``[B, U]``."""
        wavs, log_durations = self.modules.generator(
            batch["units"],
            batch["speakers"],
            self.told_languages(batch, stage),
            batch.get("runs"),
        )
        return wavs[:, None], log_durations

    def compute_objectives(
        self, predictions: Any, batch: dict, stage: sb.Stage
    ) -> torch.Tensor:
        """Return the generator's loss; in validation, the mel distance."""
        (made, log_durations), spoken = predictions, batch["wavs"][:, None]
        losses = self.hparams.generator_loss
        if stage != TRAIN:
            return losses.l1_spec_loss(made, spoken)
        with torch.no_grad():
            _, expected = self._judge(spoken)
        scores, features = self._judge(made)
        told = losses(stage, made, spoken, scores, features, expected)
        loss = told["G_loss"]
        if log_durations is not None:
            loss = loss + Durations.loss(log_durations, batch["durations"])
        return loss

    def _reset_averages(self) -> None:
        super()._reset_averages()
        self._discriminator_loss = torch.zeros((), device=self.device)

    def log_more(self) -> dict[str, float]:
        """Return the discriminators' loss since the last log line."""
        loss = self._discriminator_loss / self._steps / world_size()
        return {"discriminator_loss": sum_over_ranks(loss).item()}
