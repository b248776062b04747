"""Speech beside its units, frame by frame: what a vocoder learns from."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from speechbrain_slm.units.audio import read_clips
from speechbrain_slm.units.extraction import extract_utterances
from speechbrain_slm.units.manifest import (
    NO_MANIFEST,
    read_manifest,
    refuse_missing_audio,
    sample_utterances,
)
from speechbrain_slm.units.rows import KEY_COLUMNS
from speechbrain_slm.units.tokenizers.base import Tokenizer, framewise
from speechbrain_slm.units.utterances import Utterances
from speechbrain_slm.utils.distributed import barrier
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.tables import MANIFEST, MANIFEST_KEY, read_table

logger = logging.getLogger(__name__)
_PARTS = 1 << 32


class Spoken(NamedTuple):
    """An utterance and its units."""

    wav: torch.Tensor  # [T], float32, as long as the units say
    units: np.ndarray  # [F], int64, one a frame
    speaker: int
    language: int
    codes: np.ndarray | None = None  # [F, Q], int64; of the codec, if any


class SpokenUnits:
    """Utterances of a manifest, each with the units of its frames.

    Arguments
    ---------
    manifest : A manifest; with a column ``text``, texts are held out.
    tokenizer : A fitted one, whether it de-duplicates or not.
    folder : Gets the units of the frames, which a rerun finds again.
    seconds : Speech to take, the same amount of each (language, speaker).
    held_out
        The share of texts (of audio files, where there is no text) that
        ``held`` names, and ``train`` does not. A text that is held out is so
        in all voices.
    seed : Of the draw.
    extraction : Arguments of ``extract_utterances``.
    num_codebooks
        Of a codec whose units are those of the first: how many codebooks
        ``codes`` shall have, from which a vocoder learns the others.
    """

    def __init__(
        self,
        manifest: str | Path,
        tokenizer: Tokenizer,
        folder: str | Path,
        languages: Sequence[str],
        seconds: float,
        held_out: float,
        seed: int,
        extraction: dict[str, Any] | None = None,
        num_codebooks: int | None = None,
    ) -> None:
        table = read_manifest(manifest, languages)
        self.tokenizer, self.languages = tokenizer, sorted(languages)
        drawn = sample_utterances(table, seconds, seed)
        keys = pa.Table.from_pylist(
            drawn, pa.schema(map(MANIFEST.field, [*KEY_COLUMNS, "audio"]))
        )
        refuse_missing_audio(keys, np.arange(len(keys)))
        # One unit a frame: how long each lasts is what a vocoder learns.
        frames = framewise(tokenizer)
        if num_codebooks is not None:
            if not hasattr(frames, "with_codebooks"):
                raise ValueError(
                    f"num_codebooks is {num_codebooks}, and the tokenizer is "
                    "no codec; name the folder of one (Mimi), or take "
                    "another vocoder"
                )
            frames = frames.with_codebooks(num_codebooks)
        extract_utterances([keys], frames, folder, **(extraction or {}))
        barrier()
        found = Utterances(folder)
        rows = found.locate(keys)
        good = [not one["reason"] for one in found.texts(rows)]
        if bad := len(good) - sum(good):
            logger.warning("%d audio file(s) are bad and left out", bad)
        self.rows = [one for one, fine in zip(drawn, good, strict=True) if fine]
        units = found.units(rows[np.array(good, bool)])
        self.units = [one.astype(np.int64) for one in units]
        self.codes: list[Any] = [None] * len(units)
        if num_codebooks is not None:
            self.codes = [frames.codes(one).T for one in units]
            self.units = [one[:, 0] for one in self.codes]
        self.speakers = sorted({row["speaker"] for row in self.rows})
        self.texts = _texts(manifest)
        held = np.array(
            [self._is_held(row, held_out) for row in self.rows], bool
        )
        self.held, self.train = np.flatnonzero(held), np.flatnonzero(~held)
        if not len(self.train):
            raise ValueError(
                f"{manifest}: held_out {held_out} leaves none of its "
                f"{len(self.rows)} utterance(s) to train on, {bad} bad ones "
                "aside; set it lower"
            )
        self.samples_per_unit = round(
            tokenizer.sample_rate / tokenizer.frame_rate
        )

    def _is_held(self, row, share):
        text = self.texts.get(row["sha256"], row["sha256"])
        digest = hashlib.sha256(f"{row['language']} {text}".encode()).digest()
        return int.from_bytes(digest[:4], "big") < share * _PARTS

    @functools.cached_property
    def identity(self) -> str:
        """Hash of the audio, its units, and what is held out."""
        told = [[row["sha256"], row["speaker"]] for row in self.rows]
        heard = self.units if self.codes[0] is None else self.codes
        units = hashlib.sha256(np.concatenate(heard).tobytes())
        held = self.held.tolist()
        return identity_of([told, units.hexdigest(), held])

    def some_held(self, most: int) -> np.ndarray:
        """Return at most so many of ``held``, ``[N, 1]``, of all voices."""
        count = min(most, len(self.held))
        # Utterances were drawn voice by voice: the first are of one.
        places = np.arange(count) * len(self.held) // max(count, 1)
        return self.held[places, None]

    @property
    def mean_units(self) -> float:
        """Frames of an utterance, in the mean."""
        return float(np.mean([len(one) for one in self.units]))

    def read(self, numbers: Sequence[int] | np.ndarray) -> list[Spoken]:
        """Read utterances from the disk, by their numbers.

        ValueError where audio cannot be read any more.
        """
        rows, found = [self.rows[i] for i in numbers], []
        clips = read_clips(rows, self.tokenizer.sample_rate, 1)
        for i, row, clip in zip(numbers, rows, clips, strict=True):
            if clip.wav is None:
                raise ValueError(f"{row['audio']}: {clip.reason}")
            units = self.units[i]
            missing = len(units) * self.samples_per_unit - len(clip.wav)
            # Samples that fill no unit are cut; the last may lack some.
            wav = torch.nn.functional.pad(clip.wav, (0, missing))
            speaker = self.speakers.index(row["speaker"])
            language = self.languages.index(row["language"])
            known = speaker, language, self.codes[i]
            found.append(Spoken(wav, units, *known))
        return found


def _texts(manifest: str | Path) -> dict[str, str]:
    """Return what is said in audio, by SHA-256; empty where nobody knows."""
    table = read_table(
        *(manifest, MANIFEST, MANIFEST_KEY),
        optional=("text",),
        advice=NO_MANIFEST,
    )
    if "text" not in table.column_names:
        return {}
    told = table.group_by("sha256").aggregate([("text", "min")])
    pairs = zip(
        told["sha256"].to_pylist(), told["text_min"].to_pylist(), strict=True
    )
    # Without one, an audio file is held out by itself.
    return {audio: text for audio, text in pairs if text.strip()}
