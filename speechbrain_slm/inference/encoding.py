"""Audio of users to the units of a model, and back to those below its BPE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechbrain_slm.models.folder import TOKENIZER
from speechbrain_slm.units.audio import pad
from speechbrain_slm.units.tokenizers.base import Tokenizer, deduplicate
from speechbrain_slm.units.tokenizers.bpe import DESCRIPTION, UnitBPE
from speechbrain_slm.units.tokenizers.saved import load_tokenizer
from speechbrain_slm.utils.audio import (
    BadAudio,
    check_audible,
    read_audio,
    resampled,
)
from speechbrain_slm.utils.numbers import check_number

BATCH = 8  # waveforms that are encoded at once


class Encoded(NamedTuple):
    """Units, int64 ``[U]``, and how long their speech was."""

    units: np.ndarray
    seconds: float


class Encoder:
    """A tokenizer of speech, and the BPE on top of it if there is one.

    Arguments
    ---------
    tokenizer : FileNotFoundError or ImportError in its place: why it lacks.
    config
        What the model says of the tokenizer's: units are drawn by it where
        the tokenizer itself lacks.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | Exception,
        bpe: UnitBPE | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self._tokenizer, self.bpe = tokenizer, bpe
        self._config = config or {}

    @classmethod
    def load(
        cls,
        folder: str | Path,
        source: str | Path | None = None,
        config: dict[str, Any] | None = None,
    ) -> Encoder:
        """Read the tokenizer of a model folder, if there is one.

        Arguments
        ---------
        source : Where the pretrained model of the tokenizer is.
        config : What the model says of the tokenizer's.
        """
        path = Path(folder) / TOKENIZER
        if not path.is_dir():
            return cls(
                FileNotFoundError(
                    f"{folder} has no tokenizer: it takes units, and no audio. "
                    f"Copy the folder '{TOKENIZER}' of the export to it."
                ),
                config=config,
            )
        try:
            return cls(*load_tokenizer(path, source))
        except (FileNotFoundError, ImportError) as error:
            # Units are scored, continued and spoken without it.
            there = (path / "bpe" / DESCRIPTION).is_file()
            bpe = UnitBPE.load(path / "bpe") if there else None
            return cls(error, bpe, config)

    @property
    def missing(self) -> Exception | None:
        """Why there is no tokenizer; None if there is one."""
        one = self._tokenizer
        return one if isinstance(one, Exception) else None

    @property
    def available(self) -> Tokenizer | None:
        """The tokenizer if it is there."""
        one = self._tokenizer
        return None if isinstance(one, Exception) else one

    @property
    def tokenizer(self) -> Tokenizer:
        """What makes units of speech; its absence is an error."""
        if isinstance(self._tokenizer, Exception):
            raise self._tokenizer
        return self._tokenizer

    def to(self, device: str) -> None:
        """Encode on another device."""
        if self.available is not None:
            self.available.to(device)

    def files(self, files: Sequence[tuple[Any, str | None]]) -> list[Encoded]:
        """Encode (file, language) pairs, each distinct one once.

        In place of a file there may be a list of those of sentences.
        """
        if not files:
            return []
        lists = [
            ([one] if isinstance(one, str | Path) else one, language)
            for one, language in files
        ]
        for path in (path for paths, _ in lists for path in paths):
            if not isinstance(path, str | Path):
                raise ValueError(
                    f"{path!r} is no name of an audio file; where units may "
                    "be given, they are a NumPy array of integers"
                )
        keys = [(str(p), lang) for paths, lang in lists for p in paths]
        distinct = [*dict.fromkeys(keys)]
        wavs = [self._read(path) for path, _ in distinct]
        names = [path for path, _ in distinct]
        units = self.waveforms(wavs, names, [lang for _, lang in distinct])
        rate = self.tokenizer.sample_rate
        found = {
            key: Encoded(one, len(wav) / rate)
            for key, one, wav in zip(distinct, units, wavs, strict=True)
        }
        put = [[found[str(p), lang] for p in paths] for paths, lang in lists]
        return [
            Encoded(
                np.concatenate(
                    [np.zeros(0, np.int64), *(e.units for e in one)]
                ),
                sum(e.seconds for e in one),
            )
            for one in put
        ]

    def _read(self, path: str) -> Tensor:
        try:
            sound = read_audio(path, keep="mono", audible=True)
            return self.at_rate(np.asarray(sound.samples), sound.sample_rate)
        except BadAudio as error:
            raise ValueError(f"{path}: {error}") from error

    def batch(
        self,
        wavs: Tensor | Sequence[Tensor],
        wav_lens: Tensor | None,
        sample_rate: int | None,
        languages: Sequence[str] | None,
    ) -> list[np.ndarray]:
        """Encode waveforms; see ``SpeechLM.encode_batch``."""
        for name, one in (("wav_lens", wav_lens), ("languages", languages)):
            if one is not None and len(one) != len(wavs):
                raise ValueError(
                    f"{name} has {len(one)} entries for {len(wavs)} waveforms; "
                    "expected one each, or None"
                )
        if wav_lens is not None:
            share = float(wav_lens.max())
            check_number("the largest of wav_lens", share, at_most=1)
            longest = max(map(len, wavs))
            counts = (wav_lens.cpu() * longest).round().long().tolist()
            wavs = [wav[:n] for wav, n in zip(wavs, counts, strict=True)]
        own = self.tokenizer.sample_rate
        rate = own if sample_rate is None else sample_rate
        check_number("sample_rate", rate, at_least=1, whole=True)
        sounds = [wav.detach().cpu().float().numpy() for wav in wavs]
        names = [f"waveform {number}" for number in range(len(sounds))]
        for name, sound in zip(names, sounds, strict=True):
            try:
                check_audible(sound)
            except BadAudio as error:
                raise ValueError(f"{name}: {error}") from error
        return self.waveforms(
            [self.at_rate(sound, rate) for sound in sounds],
            names,
            [*languages] if languages else [None] * len(sounds),
        )

    def at_rate(self, wav: np.ndarray, rate: int) -> Tensor:
        """Bring a waveform, float32 ``[T]``, to the tokenizer's rate."""
        return torch.from_numpy(
            resampled(wav, rate, self.tokenizer.sample_rate)
        )

    def waveforms(
        self,
        wavs: Sequence[Tensor],
        names: Sequence[str],
        languages: Sequence[str | None],
    ) -> list[np.ndarray]:
        """Encode waveforms, ``[T]`` each; ``names`` are for errors."""
        units: list[np.ndarray] = []
        size = 1 if self.tokenizer.equal_lengths else BATCH
        for begin in range(0, len(wavs), size):
            part = slice(begin, begin + size)
            given: Any = languages[part]
            given = None if None in given else [*given]
            encoded = self.tokenizer.encode(*pad(wavs[part]), given)
            for name, wav, found in zip(
                names[part], wavs[part], encoded, strict=True
            ):
                units.append(self._checked(name, wav, found))
        return units if self.bpe is None else self.bpe.encode(units)

    def _checked(self, name, wav, units):
        if units is None:
            raise ValueError(f"{name}: its features are not all finite numbers")
        if not len(units):
            seconds = len(wav) / self.tokenizer.sample_rate
            unit = 1 / self.tokenizer.frame_rate
            raise ValueError(
                f"{name}: too short, it lasts {seconds:.3f} s; expected at "
                f"least one unit's {unit:.3f} s and a little more"
            )
        return np.asarray(units, np.int64)

    @property
    def unused(self) -> list[int]:
        """Units that no speech has: BPE's unknown piece."""
        if self.bpe is not None:
            return [self.bpe.unknown]
        # sentencepiece's first, where the pieces are not there to tell.
        return [0] if "bpe" in self._config else []

    @property
    def codebooks(self) -> int:
        """How many of a codec take turns in the units."""
        merged = self.bpe is not None or "bpe" in self._config
        told = self._config.get("num_codebooks", 1)
        return 1 if merged else getattr(self.available, "num_codebooks", told)

    def below(
        self, units: Sequence[int] | np.ndarray, tags: Sequence[int] = ()
    ) -> np.ndarray:
        """Return the tokenizer's own units, as a vocoder speaks them.

        Arguments
        ---------
        tags : Symbols of languages, which are not heard.
        """
        units = np.asarray(units)
        units = units[~np.isin(units, tags)]
        if self.bpe is not None:
            units = self.bpe.decode(units)
        elif "bpe" in self._config:
            _ = self.tokenizer  # pieces are no units; says what lacks
        told = self._config.get("deduplicate", False)
        merged = getattr(self.bpe or self.available, "deduplicated", told)
        # The end of a piece and the beginning of the next may be the same.
        return deduplicate(units) if merged else units

    def units_per_second(self) -> float | None:
        """Return the rate of the units; None where they are merged, or
        nothing tells.
        """
        base = self.available
        if base is None or base.deduplicated or self.bpe is not None:
            return None
        return base.frame_rate
