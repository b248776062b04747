"""The Brain that trains a vocoder: units in, the speech they are of out."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from torch.nn.utils.rnn import pad_sequence

from speechbrain_slm.brains.base import StepBrain
from speechbrain_slm.brains.checkpoints import AtomicCheckpointer
from speechbrain_slm.brains.state import check_finite, whole_weights
from speechbrain_slm.models.vocoders.base import DESCRIPTION
from speechbrain_slm.models.vocoders.conditioning import pad_units
from speechbrain_slm.units.spoken import Spoken, SpokenUnits
from speechbrain_slm.utils.atomic import atomic_folder
from speechbrain_slm.utils.distributed import barrier, is_main

logger = logging.getLogger(__name__)
CACHED = 1 << 30  # bytes of utterances and targets that stay in memory
MEASURED = 256  # utterances that tell the mean and variance of spectra
UNKNOWN_LANGUAGE = 0.2  # share of the utterances whose language is not told
DURATION_WEIGHT = 2.0  # of durations, beside spectra


class VocoderBrain(StepBrain):
    """Train ``vocoder.network`` on utterances, and publish ``vocoder``.

    The rows of its plan are numbers of utterances. A subclass has another
    ``example``, ``compute_forward`` and ``compute_objectives``, and may have
    more modules; what ``fit`` publishes is ``vocoder`` alone.

    Arguments
    ---------
    vocoder : What is trained: see :mod:`speechbrain_slm.models.vocoders`.
    spoken : What it is trained on.
    modules : More modules than ``generator``, which is the vocoder's network.
    **others : See :class:`StepBrain`.
    """

    def __init__(
        self,
        vocoder: Any,
        spoken: SpokenUnits,
        opt_class: Callable,
        hparams: dict,
        run_opts: dict | None = None,
        checkpointer: AtomicCheckpointer | None = None,
        modules: dict | None = None,
    ) -> None:
        if hparams["parallel"] != "ddp":
            raise ValueError(
                f"parallel is {hparams['parallel']}; expected ddp: a vocoder "
                "is small, and published as it stands on one rank"
            )
        modules = {"generator": vocoder.network, **(modules or {})}
        if checkpointer is not None:
            for name, module in modules.items():
                checkpointer.add_recoverable(name, module)
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        self.vocoder, self.spoken = vocoder, spoken
        self._kept: dict[int, dict[str, torch.Tensor]] = {}
        self._room = CACHED

    @property
    def folder(self) -> Path:
        """Where the vocoder is published."""
        return Path(self.hparams.output_folder) / "vocoder"

    def cached(self, number: int) -> dict[str, torch.Tensor]:
        """Return an ``example``; the first ones, in memory, are kept.

        Reading and transforming takes as long as a step does.
        """
        found = self._kept.get(number)
        if found is None:
            found = self.example(number)
            size = sum(tensor.nbytes for tensor in found.values())
            # No place is made for another: of what comes in turn, each epoch,
            # the oldest is what will be needed first.
            if size <= self._room:
                self._kept[number] = found
                self._room -= size
        return found

    def example(self, number: int) -> dict[str, torch.Tensor]:
        """Make of an utterance what is learnt of it; lengths differ."""
        (one,) = self.spoken.read([number])
        units, durations = one.units, np.ones_like(one.units)
        if self.vocoder.deduplicated:
            # 7, 7, 2, 7 is 7, 2, 7 for 2, 1 and 1 frames.
            first = np.flatnonzero(np.diff(units, prepend=-1))
            durations = np.diff(first, append=len(units))
            units = units[first]
        found = {"units": torch.from_numpy(units)}
        found["durations"] = torch.from_numpy(durations)
        found["target"] = self.target(one)
        names = {"speakers": one.speaker, "languages": one.language}
        return found | {k: torch.tensor(v) for k, v in names.items()}

    def target(self, one: Spoken) -> torch.Tensor:
        """Return what is to be said, ``[T, ...]``: here the spectrum."""
        log_mel = self.vocoder.log_mel
        with torch.no_grad():
            return log_mel(one.wav.to(log_mel.hann.device)).cpu()

    def told_languages(self, batch: dict, stage: sb.Stage) -> torch.Tensor:
        """Return the languages, some not told: so it speaks without, too."""
        languages = batch["languages"]
        if stage != sb.Stage.TRAIN:
            return languages
        hidden = torch.rand(len(languages), device=self.device)
        unknown = len(self.vocoder.languages)
        return languages.where(hidden >= UNKNOWN_LANGUAGE, unknown)

    def collate(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Make a batch of utterances, padded with zeros."""
        examples = [self.cached(int(number)) for number in rows[:, 0]]
        batch = {
            name: pad_sequence([one[name] for one in examples], True)
            if examples[0][name].ndim
            else torch.stack([one[name] for one in examples])
            for name in examples[0]
        }
        batch["lengths"] = (batch["durations"] > 0).sum(dim=1)
        return batch

    def scored(self, batch: dict) -> int:
        """Count the spectral frames."""
        frames = self.vocoder.network.frames_per_unit
        return int(batch["durations"].sum()) * frames

    def compute_forward(self, batch: dict, stage: sb.Stage) -> Any:
        """Return spectra, ``[B, F, M]``, and log durations, ``[B, U]``."""
        return self.modules.generator(
            batch["units"],
            batch["lengths"],
            batch["speakers"],
            self.told_languages(batch, stage),
            batch["durations"],
        )

    def compute_objectives(
        self, predictions: Any, batch: dict, stage: sb.Stage
    ) -> torch.Tensor:
        """Return the mean distance of a spectral frame, and of durations."""
        spectra, log_durations = predictions
        durations, network = batch["durations"], self.vocoder.network
        lengths = durations.sum(dim=1) * network.frames_per_unit
        places = torch.arange(spectra.shape[1], device=self.device)
        mask = (places < lengths[:, None])[..., None]
        distance = (spectra - batch["target"]).abs() / network.std
        total = (distance * mask).sum() / spectra.shape[2]
        told = durations.clamp(min=1).log()
        wrong = (log_durations - told).abs() * (durations > 0)
        # Of a unit a frame nothing is learnt, by weights that all ranks expect
        # to have a gradient.
        weight = DURATION_WEIGHT * self.vocoder.deduplicated
        total = total + weight * wrong.sum()
        return total / lengths.sum()

    def fit(
        self,
        train_plan: Any,
        valid_sets: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Train until the last step of an ``UtterancePlan``."""
        there = is_main() and self.folder.exists()
        if there and not (self.folder / DESCRIPTION).is_file():
            raise FileExistsError(
                f"{self.folder} stands where the vocoder is to be, and is "
                "none. Choose another output_folder, or move it away."
            )
        self.measure()
        super().fit(train_plan, valid_sets)

    def measure(self) -> None:
        """Tell the network the mean and deviation of spectra."""
        some = self.spoken.train[:: -(-len(self.spoken.train) // MEASURED)]
        frames = torch.cat([self.cached(int(i))["target"] for i in some])
        network = self.vocoder.network
        network.mean.copy_(frames.mean(dim=0))
        network.std.copy_(frames.std(dim=0).clamp(min=1e-3))

    def identity(self) -> dict:
        """Name what a resumed run must share, the vocoder's shape included."""
        told = {"config": self.vocoder.config}
        told["tokenizer"] = self.vocoder.tokenizer_identity
        return {**super().identity(), "vocoder": told}

    def on_fit_end(self) -> None:
        """Publish the vocoder, unless training was stopped early."""
        if self.num_steps < self.plan.num_steps:
            logger.info("Stopped early: no vocoder is published.")
            return
        weights = whole_weights(self.vocoder.network)
        if is_main():
            check_finite(weights, "vocoder")
            shutil.rmtree(self.folder, ignore_errors=True)
            with atomic_folder(self.folder) as temporary:
                self.vocoder.save(temporary)
        barrier()


def told_of(examples: list[dict], deduplicated: bool) -> dict:
    """Make a batch of what neural vocoders are told beside frames' units.

    ``speakers`` and ``languages``, ``[B]``; of de-duplicated units also those
    of the whole utterances, ``runs``, and their ``durations``, ``[B, U]``.
    """
    names = ("speakers", "languages")
    batch = {n: torch.stack([one[n] for one in examples]) for n in names}
    if deduplicated:
        batch["runs"] = pad_units([one["units"].numpy() for one in examples])
        lengths = [one["durations"] for one in examples]
        # As many as there are runs, which end in copies of the last unit.
        lengths.append(torch.zeros(batch["runs"].shape[1], dtype=torch.int64))
        batch["durations"] = pad_sequence(lengths, True)[:-1]
    return batch
