"""What a model says as it is trained: continuations, spoken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import PreTrainedModel

from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.models.folder import TOKENIZER
from speechbrain_slm.models.generation import SAMPLING, generate_units
from speechbrain_slm.models.vocoders.base import Vocoder, load_vocoder
from speechbrain_slm.units.tokenizers.base import deduplicate
from speechbrain_slm.units.tokenizers.bpe import DESCRIPTION, UnitBPE
from speechbrain_slm.units.tokenizers.saved import load_tokenizer
from speechbrain_slm.utils.atomic import atomic_path


def first_halves(
    rows: np.ndarray, boundary: int, number: int, codebooks: int = 1
) -> list[np.ndarray]:
    """Return half of the longest story in each of the first rows.

    Of a codec whose codes take turns, whole frames.

    Example
    -------
    >>> rows = np.array([[9, 1, 2, 9, 3, 4, 5, 6], [7, 9, 9, 9, 9, 9, 9, 9]])
    >>> [half.tolist() for half in first_halves(rows, 9, 2)]
    [[3, 4], []]
    >>> rows = np.array([[5, 0, 6, 1, 7, 2, 4, 3]])
    >>> first_halves(rows, 8, 1, codebooks=2)[0].tolist()
    [0, 6, 1, 7]
    """
    halves = []
    for row in rows[:number]:
        parts = np.split(row, np.flatnonzero(row == boundary))
        story = max(parts, key=len)
        story = story[story != boundary]
        begin, middle = 0, len(story) // 2
        if codebooks > 1:  # and a row may begin within a frame
            at = np.flatnonzero(story < boundary // codebooks)
            begin, middle = at[[0, len(at) // 2]] if len(at) else (0, 0)
        halves.append(story[begin:middle])
    return halves


class AudioSamples:
    """Speaks how a model goes on with stories of the validation sets.

    Nothing of a training hangs on it: it draws no random numbers of torch's.

    Arguments
    ---------
    number : Continuations of each validation set.
    seed : Of the first continuation of each.
    speak : Whether this rank does; the others draw along, as slices of
        weights want it.
    """

    def __init__(
        self,
        plan: TokenPlan,
        vocoder_folder: str | Path,
        number: int,
        seed: int,
        device: str,
        speak: bool,
    ) -> None:
        self.plan, self.number, self.seed = plan, number, seed
        folder = plan.units_folder / TOKENIZER
        there = (folder / "bpe" / DESCRIPTION).is_file()
        self.bpe = UnitBPE.load(folder / "bpe") if there else None
        if self.bpe and self.bpe.identity != plan.tokenizer_identity:
            self.bpe = None
        config = {"num_codebooks": 1, **plan.tokenizer["config"]}
        self.codebooks = 1 if "bpe" in config else config["num_codebooks"]
        self.vocoder = (
            _vocoder(vocoder_folder, folder, device) if speak else None
        )

    def continuations(
        self, model: PreTrainedModel, valid_sets: dict[str, np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name of a sample, and its symbols: prompt and what follows.

        Every rank must take all of them.
        """
        boundary = self.plan.boundary
        for name, rows in valid_sets.items():
            told = boundary, self.number, self.codebooks
            prompts = first_halves(rows, *told)
            found = generate_units(
                model,
                prompts,
                max_units=max(1, *map(len, prompts)),
                seeds=range(self.seed, self.seed + len(prompts)),
                boundary=boundary,
                codebooks=self.codebooks,
                banned=[] if self.bpe is None else [self.bpe.unknown],
                **SAMPLING,
            )
            for number, pair in enumerate(zip(prompts, found, strict=True)):
                yield f"{name}-{number}", np.concatenate(pair)

    def speak(self, symbols: np.ndarray) -> tuple[torch.Tensor, int]:
        """Return the waveform of symbols, ``[T]``, and its sample rate."""
        vocoder: Any = self.vocoder
        units = symbols[symbols < self.plan.boundary]  # no language tags
        if self.bpe is not None:
            units = self.bpe.decode(units)
        if vocoder.deduplicated:
            # The end of a piece and the beginning of the next may be the same.
            units = deduplicate(units)
        # A vocoder may begin with noise.
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return vocoder.speak([units])[0], vocoder.sample_rate


def write_audio(path: Path, waveform: torch.Tensor, sample_rate: int) -> None:
    """Write a waveform, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        loudest = max(1.0, waveform.abs().max().item())
        sound = (waveform / loudest).numpy()
        soundfile.write(temporary, sound, sample_rate, format="FLAC")


def _vocoder(folder: str | Path, tokenizer: Path, device: str) -> Vocoder:
    try:
        return load_vocoder(folder).to(device)
    except ValueError:
        # A codec's decoder is in its tokenizer, which others need not load.
        return load_vocoder(folder, load_tokenizer(tokenizer)[0]).to(device)
