"""Speak a small stand-in for the benchmarks, in their layouts.

The texts are our own (``mini_texts.yaml``). With them every step runs, and
whatever is wrong with a layout shows; their accuracies mean little.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
import yaml

from speechbrain_slm.speech.tts import TextToSpeech
from speechbrain_slm.utils.atomic import atomic_path, write_atomic

TEXTS = Path(__file__).with_name("mini_texts.yaml")


def speak_mini_corpus(
    folder: str | Path, tts: TextToSpeech, speakers: Mapping[str, Mapping]
) -> int:
    """Write ``lexical/dev``, ``syntactic/dev`` and ``fr_en/test``.

    Arguments
    ---------
    folder : Gets the three. One that holds another benchmark is left alone.
    speakers
        name -> {language: Voice}, with the voices of ``en`` and ``fr``. All
        of them say every word; they take turns in the sentences.

    Returns
    -------
    How many files were spoken.
    """
    folder = Path(folder)
    texts = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))
    spoken = {}
    for name, text, rows in (
        ("lexical", "word", _lexical(texts["words"], speakers)),
        (
            "syntactic",
            "transcription",
            _syntactic(texts["sentences"], speakers),
        ),
    ):
        place = folder / name / "dev"
        _write_gold(place / "gold.csv", rows)
        for row in rows:
            path = place / f"{row['filename']}.wav"
            spoken[path] = (row["voice"], [["en", row[text]]])
    for number, pair in enumerate(texts["code_switched"]):
        speaker = _turn(speakers, number)
        for side in ("correct", "wrong"):
            path = folder / "fr_en/test" / side / f"{number:04d}.wav"
            spoken[path] = (speaker, pair[side])
    for path, (speaker, segments) in spoken.items():
        wav = [
            tts.synthesize(text, speakers[speaker][language])
            for language, text in segments
        ]
        with atomic_path(path) as temporary:
            soundfile.write(temporary, np.concatenate(wav), tts.sample_rate)
    return len(spoken)


def _turn(speakers, number):
    return list(speakers)[number % len(speakers)]


def _lexical(words, speakers):
    return [
        {
            "id": number,
            "filename": f"{name}{number:03d}{'r' if correct else 'w'}",
            "voice": name,
            "frequency": entry["frequency"] if correct else "",
            "word": (word := entry["word" if correct else "non_word"]),
            "phones": "",
            "length": len(word),
            "correct": correct,
        }
        for number, entry in enumerate(words)
        for name in speakers
        for correct in (1, 0)
    ]


def _syntactic(sentences, speakers):
    return [
        {
            "id": number,
            "filename": f"sentence{number:03d}{'r' if correct else 'w'}",
            "voice": _turn(speakers, number),
            "type": entry["type"],
            "subtype": entry["subtype"],
            "transcription": entry["right" if correct else "wrong"],
            "correct": correct,
        }
        for number, entry in enumerate(sentences)
        for correct in (1, 0)
    ]


def _write_gold(path, rows):
    content = io.StringIO()
    writer = csv.DictWriter(content, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    text = content.getvalue()
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise FileExistsError(
            f"{path} is there and is not that of the mini corpus as it is "
            "now; choose another output_folder, or remove that folder"
        )
    write_atomic(path, text)
