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

import re
from collections.abc import Mapping
from pathlib import Path

from speechbrain_slm.benchmarks import spoken_items
from speechbrain_slm.benchmarks.spoken_items import Clip, Item
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
    places = {language: Path(folder) for language, folder in folders.items()}
    stories = {
        language: spoken_items.group_files(_files(place, layout), PARTS[layout])
        for language, place in places.items()
    }
    directions = [(language, language) for language in stories]
    if layout == "triples":
        # A story is asked in every direction: each language needs it.
        named = [
            (name, key, places[key]) for key in places for name in stories[key]
        ]
        spoken_items.group_files(named, places)
        directions = [(one, two) for one in places for two in places]
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
            names = [f"{benchmark}.{story}.{part}" for part in PARTS[layout]]
            prompt = [""] if layout == "pairs" else []
            items.append(Item(story, benchmark, one, two, *prompt, *names))
    return clips, items


def _files(folder, layout):
    """Yield story, part and file."""
    parts = PARTS[layout]
    for name, path in spoken_items.audio_in(folder, f"the layout '{layout}'"):
        story, _, part = name.rpartition("_")
        if layout == "pairs":
            story = INDEX.sub("", story, count=1)
        if not story or part not in parts:
            names = ", ".join(f"..._{part}{path.suffix}" for part in parts)
            raise ValueError(
                f"{path} is of no story; the layout '{layout}' has {names}. "
                "Remove the file, or choose the other layout."
            )
        yield story, part, path
