"""What a model says behind a prompt: units, their speech, and its words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from speechbrain_slm.evaluation.generation.recognizer import Recognizer
from speechbrain_slm.evaluation.generation.unit_language import UnitLanguage
from speechbrain_slm.inference.speech_lm import SpeechLM
from speechbrain_slm.inference.story_prompts import FREE
from speechbrain_slm.models.generation import generate_units
from speechbrain_slm.speech.audio_files import encode
from speechbrain_slm.utils.atomic import write_atomic
from speechbrain_slm.utils.hashing import identity_of

AUDIO = "audio"
_TEXTS = ("story_id", "direction", "steered_by", "asked", "speaker")
_LISTS = dict.fromkeys(("prompt_units", "units", "prompt_symbols"), pa.int32())
_LISTS |= dict.fromkeys(("prompt_languages", "prompt_texts"), pa.string())
_HEARD = ("audio", "transcript", "heard_language", "whole_transcript")
_NUMBERS = ("unit_probability", "seconds", "heard_probability")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        *(("sample", pa.int32()), ("seed", pa.int64())),
        *((name, pa.list_(kind)) for name, kind in _LISTS.items()),
        *(("ended", pa.bool_()), ("unit_language", pa.string())),
        *((name, pa.string()) for name in _HEARD),
        *((name, pa.float64()) for name in _NUMBERS),
    ]
)


@dataclass
class ContinuationMaker:
    """Goes on with prompts: units, then audio, then text."""

    slm: SpeechLM
    languages: UnitLanguage | None  # of units; None: nothing tells it
    ear: Recognizer | None
    how: dict  # units are drawn
    seed: int
    whole: bool  # whether the prompt is spoken and written down as well
    folder: Path

    def rows(self, work: Sequence[tuple]) -> list[dict]:
        """Return the rows of a batch: (prompt, sample, is it spoken)."""
        seeds = [self._seed(prompt, sample) for prompt, sample, _ in work]
        drawn = self._draw([prompt for prompt, _, _ in work], seeds)
        most, boundary = self.how["max_units"], self.how["boundary"]
        rows = []
        for (prompt, sample, _), own, found in zip(
            work, seeds, drawn, strict=True
        ):
            names = ("story_id", "direction", "steered_by", "asked", "speaker")
            row = {name: getattr(prompt, name) for name in names}
            row |= {"sample": sample, "seed": own, "ended": len(found) < most}
            row["prompt_languages"] = prompt.languages
            row["prompt_texts"] = prompt.texts
            row["prompt_units"] = prompt.units
            row["prompt_symbols"] = _read(prompt)
            units = found[found < boundary]  # without tags
            # Each of which was drawn in place of a code: of a codec, the last
            # frame may lack some.
            whole = len(units) - len(units) % self.how["codebooks"]
            row["units"] = units[:whole]
            rows.append(row)
        told: Any = [(None, None)] * len(rows)
        if self.languages is not None:
            told = self.languages([row["units"] for row in rows])
        for row, (language, probability) in zip(rows, told, strict=True):
            row["unit_language"] = language
            row["unit_probability"] = probability
        if self.slm.hparams.vocoder is not None:
            spoken = (
                row for row, one in zip(rows, work, strict=True) if one[2]
            )
            for row in spoken:
                self._speak(row)
        return rows

    def _seed(self, prompt, sample):
        names = prompt.story_id, prompt.direction, prompt.steered_by
        return int(identity_of([self.seed, *names, sample])[:15], 16)

    def _draw(self, prompts, seeds):
        tagged = bool(self.slm.facts["language_tags"])
        # Where nothing steers it, a model that has tags may say its own.
        free = [tagged and one.steered_by == FREE for one in prompts]
        found = {}
        for allowed in sorted({*free}):
            group = [n for n, one in enumerate(free) if one == allowed]
            with self.slm.inference_ctx:
                drawn = generate_units(
                    self.slm.model,
                    [_read(prompts[n]) for n in group],
                    seeds=[seeds[n] for n in group],
                    allow_tags=allowed,
                    **self.how,
                )
            found |= zip(group, drawn, strict=True)
        return [found[n] for n in range(len(prompts))]

    def _waveform(self, row, units):
        known = row["speaker"] in self.slm.vocoder.speakers
        who, language = row["speaker"] if known else None, row["unit_language"]
        (wav,) = self.slm.decode_batch([units], who, language)
        return wav.numpy()

    def _speak(self, row):
        rate = self.slm.vocoder.sample_rate
        wav = self._waveform(row, row["units"])
        row["seconds"] = len(wav) / rate
        if len(wav):
            samples = (np.clip(wav, -1, 1) * 32767).astype(np.int16)
            content = encode(samples, rate, "flac")
            # Also of what is in it: another request, begun in the same folder,
            # must not put its own in the place of what is written down.
            place = row["story_id"], row["direction"], row["sample"]
            told = *place, hashlib.sha256(content).hexdigest()
            name = identity_of(told)[:16]
            row["audio"] = f"{AUDIO}/{name}.flac"
            write_atomic(self.folder / row["audio"], content)
        if self.ear is None:
            return
        (said,) = self.ear.transcribe([wav], rate)
        row["transcript"], row["heard_language"] = said.text, said.language
        row["heard_probability"] = said.probability
        if self.whole:
            units = np.concatenate([row["prompt_units"], row["units"]])
            wav = self._waveform(row, units)
            (said,) = self.ear.transcribe([wav], rate)
            row["whole_transcript"] = said.text


def _read(prompt):
    """Return what the model reads: with the tag of what is to come."""
    if prompt.tag is None:
        return prompt.symbols
    return np.append(prompt.symbols, prompt.tag)
