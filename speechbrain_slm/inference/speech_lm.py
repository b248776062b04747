"""A trained speech LM for use in a script: :class:`SpeechLM`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor

from speechbrain_slm.inference.encoding import Encoder
from speechbrain_slm.inference.hub import push_folder
from speechbrain_slm.inference.prompts import (
    draw_units,
    drawing,
    read_prompts,
)
from speechbrain_slm.inference.scoring import score_files
from speechbrain_slm.inference.speaking import (
    CONTEXT,
    each_within,
    load_speaker,
    speak_as,
    speak_stream,
)
from speechbrain_slm.models.export import load_speech_lm
from speechbrain_slm.models.folder import find_speech_lm
from speechbrain_slm.models.generation import stream_units
from speechbrain_slm.models.vocoders.base import Vocoder
from speechbrain_slm.utils.numbers import check_number

if TYPE_CHECKING:
    from typing_extensions import Self

# An audio file, or the files of a story's sentences, in their order.
Audio: TypeAlias = "str | Path | Sequence[str | Path]"
CHUNK = 12  # units a second, where nothing tells


class Continuation(NamedTuple):
    """What a model says next."""

    waveform: Tensor  # [T], float32, at the vocoder's rate
    units: np.ndarray  # [U], int64


class SpeechLM(Pretrained):
    """A speech LM with its tokenizer and, where there is one, its vocoder.

    Made by :meth:`from_hparams` or :meth:`from_pretrained`. Audio files may
    have any sample rate and several channels. In place of a file there may be
    a list of those of a story's sentences: each is encoded by itself, as in a
    unit store.

    Example
    -------
    >>> from speechbrain_slm import SpeechLM
    >>> slm = SpeechLM.from_pretrained("user/model")  # doctest: +SKIP
    >>> slm.score_files(["right.wav", "wrong.wav"])  # doctest: +SKIP
    array([-5.21, -5.74])
    >>> waveform, units = slm.continue_file(  # doctest: +SKIP
    ...     "prompt.wav", seconds=5, language="fr", seed=7)
    """

    def __init__(
        self,
        modules: dict[str, Any],
        hparams: dict[str, Any],
        run_opts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(modules, hparams, run_opts)
        self.folder, self.facts = hparams["folder"], hparams["units"]
        self.encoder, self._vocoder = hparams["encoder"], hparams["vocoder"]
        self._tags = [*self.facts["language_tags"].values()]
        self.encoder.to(self.device)
        self._speaks = not isinstance(self._vocoder, Exception | None)
        if self._speaks:
            self._vocoder.to(self.device)

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        savedir: str | Path | None = None,
        run_opts: dict[str, Any] | None = None,
        vocoder: str | Path | Vocoder | None = None,
        encoder: str | Path | None = None,
        cache_dir: str | Path | None = None,
        revision: str | None = None,
    ) -> Self:
        """Load a model folder; nothing in it is executed, no YAML, no pickle.

        Arguments
        ---------
        source : A folder that training exported, or a name on the hub.
        savedir, cache_dir, revision : See :func:`find_speech_lm`.
        run_opts : SpeechBrain's, such as ``{"device": "cuda"}``.
        vocoder
            A folder that the vocoder recipe wrote, or a vocoder, in place of
            the one in the model folder.
        encoder
            Where the tokenizer's pretrained model is, if it has one: a hub
            name or a folder. By default what the tokenizer names.
        """
        folder = find_speech_lm(source, savedir, cache_dir, revision)
        model, units = load_speech_lm(folder)
        units_of = Encoder.load(folder, encoder, units.get("tokenizer"))
        speaks = load_speaker(folder, units, vocoder, units_of)
        parts = {"encoder": units_of, "vocoder": speaks}
        told = {"folder": folder, "units": units, **parts}
        return cls({"model": model}, told, run_opts)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: str | None = None, **how: Any
    ) -> Self:
        """Load a model folder or a model of the hub; see :meth:`from_hparams`.

        ``device``: by default a GPU where there is one.
        """
        run_opts = how.pop("run_opts", None) or {}
        if device is not None:
            run_opts = {**run_opts, "device": str(device)}
        return cls.from_hparams(source, run_opts=run_opts, **how)

    def push_to_hub(
        self,
        name: str,
        cache_dir: str | Path | None = None,
        private: bool | None = None,
    ) -> str:
        """Upload the model's folder; see :func:`hub.push_folder`."""
        return push_folder(self.folder, name, cache_dir, private)

    @property
    def model(self) -> Any:
        """The language model, of Hugging Face transformers."""
        return self.mods["model"]

    @property
    def vocoder(self) -> Vocoder:
        """What makes speech of units; its absence is an error."""
        if isinstance(self._vocoder, Exception):
            raise self._vocoder
        if self._vocoder is None:
            raise FileNotFoundError(
                f"{self.folder} has no vocoder, so its units cannot be heard. "
                "Train one on units of its tokenizer with the recipe "
                "recipes/TinyStories/vocoder, and load the model with "
                "vocoder=<its folder>."
            )
        return self._vocoder

    def forward(self, *args: Any, **options: Any) -> Any:
        """Call the language model."""
        return self.model(*args, **options)

    def encode_file(
        self, path: Audio, language: str | None = None
    ) -> np.ndarray:
        """Turn an audio file into units, int64 ``[U]``.

        ValueError if it is silent, or too short for a unit.

        Arguments
        ---------
        language : Needed where each language has a codebook of its own.
        """
        return self.encoder.files([(path, language)])[0].units

    def encode_batch(
        self,
        wavs: Tensor | Sequence[Tensor],
        wav_lens: Tensor | None = None,
        sample_rate: int | None = None,
        languages: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """Turn waveforms into units, int64 ``[U]`` each.

        Arguments
        ---------
        wavs : ``[B, T]``, or a list of ``[T]``.
        wav_lens : As SpeechBrain has it: shares of ``T``, 1 for the longest.
        sample_rate : Of the waveforms, in Hz; by default the tokenizer's.
        """
        return self.encoder.batch(wavs, wav_lens, sample_rate, languages)

    def score_file(
        self, path: Audio, prompt: Audio | None = None, **how: Any
    ) -> float:
        """Score a file, or the ending of a prompt; see :meth:`score_files`."""
        return float(self.score_files([(prompt or [], path)], **how)[0])

    def score_files(
        self,
        files: Sequence[Any],
        convention: str = "whole_mean",
        languages: Sequence[Any] | None = None,
        start: str = "boundary",
        score_end: bool = False,
    ) -> np.ndarray:
        """Return log-likelihoods in nats, float64 ``[N]``, as the cloze recipe.

        Arguments
        ---------
        files : Each an audio file, or a pair ``(prompt, ending)``.
        convention : One of ``LIKELIHOODS``.
        languages
            Of each file, or a pair of the prompt's and the ending's. Needed
            where the model has language tags, or the tokenizer a codebook a
            language.
        start, score_end : See :class:`LikelihoodScorer`.
        """
        what = self.model, self.facts, self.encoder
        how: Any = {"start": start, "score_end": score_end}
        with self.inference_ctx:
            return score_files(*what, files, convention, languages, **how)

    def continue_file(
        self, path: Audio, seconds: float = 5.0, **how: Any
    ) -> Continuation:
        """Let the model go on where a file ends; see :meth:`continue_batch`."""
        return self.continue_batch([path], seconds, **how)[0]

    def continue_batch(
        self,
        prompts: Sequence[Any],
        seconds: float = 5.0,
        speaker: str | None = None,
        **how: Any,
    ) -> list[Continuation]:
        """Let the model go on behind each prompt, and speak.

        Arguments
        ---------
        prompts, seconds, **how : See :meth:`continue_units`.
        speaker : One of ``vocoder.speakers``.
        """
        _ = self.vocoder  # before the work, if there is none
        units = self.continue_units(prompts, seconds, **how)
        wavs = self.decode_batch(units, speaker, how.get("language"))
        return [Continuation(*one) for one in zip(wavs, units, strict=True)]

    def continue_units(
        self,
        prompts: Sequence[Any],
        seconds: float = 5.0,
        language: str | None = None,
        prompt_language: str | None = None,
        seed: int | Sequence[int] = 0,
        max_units: int | None = None,
        **how: Any,
    ) -> list[np.ndarray]:
        """Let the model go on behind each prompt; int64 ``[U]`` each.

        The same prompt and seed give the same units, alone and in any batch.

        Arguments
        ---------
        prompts : Audio files, or arrays of units.
        seconds
            Of speech, about. Where units are merged, as many as take so long
            in the prompt.
        language
            In which to go on. A model without language tags goes on as the
            prompt suggests: let the prompt's last sentence be in it.
        prompt_language
            Of the prompt; needed as in :meth:`score_files`.
        seed : Of the draws; one for all prompts, or a list.
        max_units : In place of ``seconds``.
        **how
            ``temperature`` (0.8), ``top_k`` (25), ``top_p``, and what else
            :func:`stream_units` takes.
        """
        asked = seconds, max_units, language, prompt_language
        read = self._read(prompts, *asked)
        seeds: Any = [seed] * len(read) if np.ndim(seed) == 0 else seed
        with self.inference_ctx:
            how = drawing(self.encoder, self.facts["boundary"], how)
            return draw_units(self.model, read, seeds, **how)

    def stream(
        self,
        prompt: Any,
        seconds: float = 5.0,
        speaker: str | None = None,
        language: str | None = None,
        prompt_language: str | None = None,
        seed: int = 0,
        max_units: int | None = None,
        chunk_seconds: float = 0.5,
        **how: Any,
    ) -> Iterator[Tensor]:
        """Yield the speech of a continuation as it comes, float32 ``[T]``.

        Of the same units as :meth:`continue_file`; where chunks meet they are
        mixed for 10 ms.

        Arguments
        ---------
        chunk_seconds : How long a chunk is, about.
        """
        vocoder, below = self.vocoder, self.encoder.below
        check_number("chunk_seconds", chunk_seconds, above=0)
        asked = seconds, max_units, language, prompt_language
        ((row, count, rate),) = self._read([prompt], *asked)
        chunk = max(1, round(chunk_seconds * (rate or CHUNK)))
        how = drawing(self.encoder, self.facts["boundary"], how)
        how |= {"max_units": count, "chunk": chunk}
        drawn = stream_units(self.model, [row], seeds=[seed], **how)
        heard = below(row, self._tags)
        drawn = each_within(self.inference_ctx, drawn)
        chunks = (below(units, self._tags) for (units,) in drawn)
        # Of a codec, whole frames.
        context = CONTEXT * self.encoder.codebooks
        voice = speaker, language
        return speak_stream(vocoder, chunks, heard, *voice, context)

    def _read(self, prompts, seconds, max_units, language, prompt_language):
        speaks = self._duration if self._speaks else None
        asked = language, prompt_language, seconds, max_units, speaks
        return read_prompts(self.encoder, self.facts, prompts, *asked)

    def _duration(self, units):
        (wav,) = self.decode_batch([units])
        return len(wav) / self.vocoder.sample_rate

    def resynthesize_file(
        self,
        path: Audio,
        speaker: str | None = None,
        language: str | None = None,
    ) -> Tensor:
        """Speak a file's units: what the model hears of it, ``[T]``."""
        units = self.encode_file(path, language)
        return self.decode_batch([units], speaker, language)[0]

    def decode_batch(
        self,
        units: Sequence[np.ndarray],
        speaker: str | None = None,
        language: str | None = None,
    ) -> list[Tensor]:
        """Turn units into speech at ``vocoder.sample_rate``, ``[T]`` each."""
        below = [self.encoder.below(one, self._tags) for one in units]
        return speak_as(self.vocoder, below, speaker, language)
