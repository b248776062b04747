"""How well a vocoder is understood: speech, its units, and speech again."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from speechbrain_slm.evaluation.generation.recognizer import word_errors
from speechbrain_slm.units.tokenizers.base import deduplicate
from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.tables import markdown_row, write_table

if TYPE_CHECKING:
    from speechbrain_slm.evaluation.generation.recognizer import Recognizer
    from speechbrain_slm.models.vocoders.base import Vocoder
    from speechbrain_slm.units.spoken import SpokenUnits

logger = logging.getLogger(__name__)
# Of the speech itself, and of what the vocoder makes of its units.
SPEECH = ("original", "resynthesized")
RESULTS, UTTERANCES = "results.json", "resynthesis.parquet"


def judge(
    vocoder: Vocoder,
    spoken: SpokenUnits,
    recognizer: Recognizer,
    each: int,
    folder: str | Path,
) -> list[dict[str, Any]]:
    """Measure word error rates, and write ``results.json``.

    What was said and heard goes to ``resynthesis.parquet`` beside it. Results
    that are there for the same of all this are returned as they are.

    Arguments
    ---------
    spoken : Some of them with a text, or ValueError.
    each
        Utterances of every language, speaker and kind: ``held_out`` are texts
        that the vocoder never heard, ``known`` those that it was trained on.
    """
    if not any(row["sha256"] in spoken.texts for row in spoken.rows):
        raise ValueError(
            f"none of {len(spoken.rows)} utterances has a text in the "
            "manifest's column 'text', by which word errors are counted; set "
            "judged to 0, or give a manifest that has"
        )
    path = Path(folder) / RESULTS
    request = {
        "metric": "word_error_rate",
        "vocoder": vocoder.identity,
        "tokenizer": vocoder.tokenizer_identity,
        "recognizer": recognizer.identity,
        "speech": identity_of([spoken.identity, spoken.texts]),
        "each": each,
    }
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        found = read_json(path)
        if all(found.get(name) == told for name, told in request.items()):
            logger.info("%s is complete; nothing to do", path)
            return found["results"]
    path.unlink(missing_ok=True)
    kinds = {"held_out": spoken.held, "known": spoken.train}
    drawn = [
        (kind, number)
        for kind, numbers in kinds.items()
        for number in _some_of_each(spoken, numbers, each)
    ]
    rows = [_row(vocoder, spoken, recognizer, *one) for one in drawn]
    write_table(Path(folder) / UTTERANCES, pa.Table.from_pylist(rows))
    results = summary(rows)
    write_json(path, {**request, "results": results})
    return results


def _some_of_each(
    spoken: SpokenUnits, numbers: np.ndarray, each: int
) -> Iterator[int]:
    """Take the first of every language and speaker that have a text."""

    def voice(number):
        row = spoken.rows[number]
        return row["language"], row["speaker"], row["sha256"]

    told = [n for n in numbers.tolist() if voice(n)[2] in spoken.texts]
    ordered = sorted(told, key=voice)
    for _, group in itertools.groupby(ordered, lambda one: voice(one)[:2]):
        yield from itertools.islice(group, each)


def _row(vocoder, spoken, recognizer, kind, number):
    row, (one,) = spoken.rows[number], spoken.read([number])
    units = deduplicate(one.units) if vocoder.deduplicated else one.units
    language, speaker = row["language"], row["speaker"]
    (again,) = vocoder.speak([units], [speaker], [language])
    speech = zip(
        SPEECH,
        (one.wav.numpy(), again.numpy()),
        (spoken.tokenizer.sample_rate, vocoder.sample_rate),
        strict=True,
    )
    told = {"kind": kind, "language": language, "speaker": speaker}
    told |= {"sha256": row["sha256"], "text": spoken.texts[row["sha256"]]}
    for name, wav, rate in speech:
        (said,) = recognizer.transcribe([wav], rate, language)
        errors, told["words"] = word_errors(told["text"], said.text)
        told |= {name: said.text, f"{name}_errors": errors}
    return told


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum up word errors, in percent, by kind and voice, and by kind."""
    voices = sorted({(row["language"], row["speaker"]) for row in rows})
    languages = sorted({(language, "all") for language, _ in voices})
    found = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        for language, speaker in [*voices, *languages, ("all", "all")]:
            told: dict[str, Any] = {
                "kind": kind,
                "language": language,
                "speaker": speaker,
            }
            here = [
                row
                for row in rows
                if row["kind"] == kind
                and language in ("all", row["language"])
                and speaker in ("all", row["speaker"])
            ]
            words = sum(row["words"] for row in here)
            if not words:  # a voice of the other kind
                continue
            told |= {"utterances": len(here), "words": words}
            for name in SPEECH:
                errors = np.array([row[f"{name}_errors"] for row in here])
                told[name] = round(100 * float(errors.sum()) / words, 1)
            found.append(told)
    return found


def results_table(results: list[dict[str, Any]]) -> str:
    """Write word error rates as a Markdown table."""
    names = [*results[0]]
    lines = [names, [":--"] * 3 + ["--:"] * (len(names) - 3)]
    lines += [[str(value) for value in one.values()] for one in results]
    return "\n".join(map(markdown_row, lines))
