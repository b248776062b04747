"""Speakers: one voice a language, paired so that a story keeps its teller."""

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from speechbrain_slm.utils.hashing import identity_of

SPEAKER_PER = ("story", "sentence")
_Voices = TypeVar("_Voices")  # of a speaker: language -> Voice


def draw_speaker(
    seed: int,
    story_id: str,
    speakers: Iterable[str],
    sentence: int | None = None,
) -> str:
    """Draw the speaker who tells a story, the same in every language.

    ``sentence`` is its number, where each has a speaker of its own. The order
    of the names does not count.
    """
    names = sorted(speakers)
    key = [seed, story_id, *([] if sentence is None else [sentence])]
    return names[int(identity_of(key), 16) % len(names)]


def choose_speakers(
    catalogue: Mapping[str, _Voices], names: list[str]
) -> dict[str, _Voices]:
    """Take speakers from {name: {language: Voice}}; refuse other names."""
    if not names or set(names) - catalogue.keys():
        raise ValueError(
            f"speakers: found {list(names)}; expected one or more of "
            f"{', '.join(catalogue)}"
        )
    return {name: catalogue[name] for name in names}


def kept_speakers(path: str | Path) -> list[str]:
    """Return the speakers whom a speaker check has kept (``voices.json``)."""
    try:
        return json.loads(Path(path).read_text("utf-8"))["kept"]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"speakers: {path} is not there; run the speaker check first, or "
            "name the speakers: --speakers '[alba, jean]'"
        ) from error


def check_voices(
    tts: Any, speakers: Mapping[str, Mapping], languages: Iterable[str]
) -> None:
    """Refuse speakers ({name: {language: Voice}}) who lack a language."""
    for name, language in itertools.product(speakers, languages):
        voices = speakers[name]
        if language not in voices:
            raise ValueError(
                f"speaker '{name}' has no voice for the language '{language}'; "
                f"found {', '.join(voices)}. Add it, or choose another one."
            )
        try:
            tts.check_voice(voices[language])
        except ValueError as error:
            raise ValueError(f"speaker '{name}': {error}") from error
