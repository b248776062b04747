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
from collections.abc import Mapping
from pathlib import Path

from speechbrain_slm.benchmarks.spoken_items import AUDIO, Clip, Item, audio_in
from speechbrain_slm.utils.numbers import check_choice

PARTS = {
    "pairs": ("correct", "incorrect"),
    "triples": ("mutual", "correct", "incorrect"),
}
# 7_a_tale_correct and 3_a_tale_incorrect are of one story; 12_correct has no
# name beside its number, which names it then.
INDEX = re.compile(r"\d+_(?=.)")


def read_story_cloze(
    folders: Mapping[str, str | Path],
    layout: str,
    benchmark: str,
    speaker: str = "unknown",
) -> tuple[list[Clip], list[Item]]:
    """Read flat folders of stories, one folder a language.

    ``pairs`` give items of each language, ``triples`` of each pair of them.

    Arguments
    ---------
    folders : Language -> folder.
    layout : ``pairs`` or ``triples``, see above.
    benchmark : What the items are called: ``sSC``, ``sTC``.
    speaker : Who speaks; nothing in the layouts says it.

    """
    check_choice("layout", layout, PARTS)
    stories = {
        language: _read_folder(Path(folder), layout)
        for language, folder in folders.items()
    }
    has_prompt = "mutual" in PARTS[layout]
    directions = list(itertools.product(stories, repeat=2))
    if has_prompt:
        _refuse_other_stories(folders, stories)
    else:
        directions = [(language, language) for language in stories]
    # Sorted, so that the order of the file system is not in the tables.
    clips = [
        Clip(f"{benchmark}.{story}.{part}", language, speaker, path)
        for language, found in stories.items()
        for story, files in sorted(found.items())
        for part, path in sorted(files.items())
    ]
    items = []
    for one, two in directions:
        for story in sorted(stories[two]):
            prompt, right, wrong = (
                f"{benchmark}.{story}.{part}" for part in PARTS["triples"]
            )
            prompt = prompt if has_prompt else ""
            items.append(Item(story, benchmark, one, two, prompt, right, wrong))
    return clips, items


def _read_folder(folder, layout):
    """Return story -> part -> file."""
    parts, stories = PARTS[layout], {}
    for name, path in audio_in(folder, "one of audio files"):
        story, _, part = name.rpartition("_")
        if layout == "pairs":
            story = INDEX.sub("", story, count=1)
        if not story or part not in parts:
            names = ", ".join(f"..._{part}{path.suffix}" for part in parts)
            raise ValueError(
                f"{path} is of no story; the layout '{layout}' has {names}. "
                "Remove the file, or choose the other layout."
            )
        other = stories.setdefault(story, {}).setdefault(part, path)
        if other != path:
            raise ValueError(
                f"{folder}: story '{story}' stands twice: {other.name} and "
                f"{path.name}. Remove one of them."
            )
    if not stories:
        raise FileNotFoundError(
            f"{folder} holds no {' or '.join(AUDIO)} file; expected the "
            f"layout '{layout}'"
        )
    for story, files in sorted(stories.items()):
        for part in (part for part in parts if part not in files):
            there = ", ".join(path.name for path in files.values())
            raise ValueError(
                f"{folder}: story '{story}' has {there} but no file that "
                f"ends in _{part}; expected {' and '.join(parts)}. Add "
                "what is missing, or remove the story."
            )
    return stories


def _refuse_other_stories(folders, stories):
    first, *others = stories
    for other in others:
        for story in sorted(stories[first].keys() ^ stories[other].keys()):
            is_first = story in stories[first]
            here, there = (first, other)[:: 1 if is_first else -1]
            raise ValueError(
                f"{folders[here]}: story '{story}' is not in {folders[there]} "
                f"('{there}'). Read them one by one, or remove the story."
            )
