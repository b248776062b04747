"""Spoken StoryCloze in flat folders of WAV files.

``pairs``: whole stories, ``{index}_{story}_correct.wav`` and
``{index}_{story}_incorrect.wav``. So Spoken StoryCloze (Hassid et al. 2023,
https://github.com/slp-rl/SpokenStoryCloze) is scored by SlamKit, whose
``ModellingMetricDataset`` sorts a folder by the number before the first
underscore and takes two files at a time: which of the two is the right one
then hangs on the order in which the file system lists them. Here the names
say it.

``triples``: a prompt and two endings, ``{id}_mutual.wav``,
``{id}_correct.wav`` and ``{id}_incorrect.wav``, as SlamKit's
``CrossModalMetricDataset`` reads them. Folders of several languages whose
identifiers agree give items in every direction.
"""

import itertools
import re
from pathlib import Path

from speechbrain_slm.benchmarks.prepared import AUDIO, Clip
from speechbrain_slm.utils.files import files_in, nfc

PARTS = {
    "pairs": ("correct", "incorrect"),
    "triples": ("mutual", "correct", "incorrect"),
}
INDEX = re.compile(r"\d+_(?=.)")


def read_story_cloze(
    folders: dict, layout: str, benchmark: str, speaker: str = "unknown"
) -> tuple[list[Clip], list[dict]]:
    """Read flat folders of stories, one folder a language.

    Arguments
    ---------
    folders
        language -> folder. ``.wav`` and ``.flac`` files count; transcripts
        beside them do not.
    layout : ``pairs`` or ``triples``, see above.
    benchmark : What the items are called: ``sSC``, ``sTC``.
    speaker : Who speaks; nothing in the layouts says it.

    Returns
    -------
    list of Clip
        All audio.
    list of dict
        The items: for ``pairs`` of each language, for ``triples`` of each
        pair of languages.

    Raises
    ------
    FileNotFoundError
        If a folder does not exist, or has no audio.
    ValueError
        If the layout is unknown, a file is of no story, a story lacks a file
        or stands twice, or languages of ``triples`` have other stories.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("0_tom_correct", "0_tom_incorrect"):
    ...     (folder / f"{name}.wav").touch()
    >>> clips, items = read_story_cloze({"en": folder}, "pairs", "sSC")
    >>> [clip.story_id for clip in clips]
    ['sSC.tom.correct', 'sSC.tom.incorrect']
    >>> items[0]["prompt"], items[0]["right"]
    ('', 'sSC.tom.correct')
    """
    if layout not in PARTS:
        raise ValueError(
            f"layout is '{layout}'; expected one of {', '.join(PARTS)}"
        )
    stories = {
        language: _read_folder(Path(folder), layout)
        for language, folder in folders.items()
    }
    if layout == "triples":
        _refuse_other_stories(folders, stories)
    clips = [
        Clip(f"{benchmark}.{story}.{part}", language, speaker, path)
        for language, found in stories.items()
        for story, files in sorted(found.items())
        for part, path in sorted(files.items())
    ]
    directions = (
        itertools.product(stories, repeat=2)
        if layout == "triples"
        else zip(stories, stories, strict=True)
    )
    items = [
        {
            "item_id": story,
            "benchmark": benchmark,
            "prompt_language": prompt_language,
            "ending_language": ending_language,
            "prompt": (
                f"{benchmark}.{story}.mutual" if layout == "triples" else ""
            ),
            "right": f"{benchmark}.{story}.correct",
            "wrong": f"{benchmark}.{story}.incorrect",
        }
        for prompt_language, ending_language in directions
        for story in sorted(stories[ending_language])
    ]
    return clips, items


def _read_folder(folder, layout):
    """Return story -> part -> file."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder; expected one of audio files"
        )
    parts = PARTS[layout]
    stories = {}
    for path in files_in(folder, deep=False):
        if path.suffix.lower() not in AUDIO:
            continue
        story, _, part = nfc(path.stem).rpartition("_")
        if layout == "pairs":
            story = INDEX.sub("", story, count=1)
        if not story or part not in parts:
            names = ", ".join(f"..._{part}{path.suffix}" for part in parts)
            raise ValueError(
                f"{path} is of no story; the layout '{layout}' has "
                f"{names}. Remove the file, or choose the other layout."
            )
        files = stories.setdefault(story, {})
        if part in files:
            raise ValueError(
                f"{folder}: story '{story}' stands twice: "
                f"{files[part].name} and {path.name}. Remove one of them."
            )
        files[part] = path
    if not stories:
        raise FileNotFoundError(
            f"{folder} holds no {' or '.join(AUDIO)} file; expected the "
            f"layout '{layout}'"
        )
    for story, files in sorted(stories.items()):
        missing = [part for part in parts if part not in files]
        if missing:
            there = ", ".join(path.name for path in files.values())
            raise ValueError(
                f"{folder}: story '{story}' has {there} but no file that "
                f"ends in _{missing[0]}; expected {' and '.join(parts)}. Add "
                "what is missing, or remove the story."
            )
    return stories


def _refuse_other_stories(folders, stories):
    first, *others = stories
    for other in others:
        for story in sorted(stories[first].keys() ^ stories[other].keys()):
            here, there = (
                (first, other) if story in stories[first] else (other, first)
            )
            raise ValueError(
                f"{folders[here]}: story '{story}' is not in "
                f"{folders[there]} ('{there}'); folders that are read "
                "together need the same stories. Read them one by one, or "
                "remove the story."
            )
