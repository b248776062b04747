"""Write stories by the bundled grammar, and cloze items of them.

The text is made anew at each run: it takes seconds, is a pure function of the
arguments, and so can never be that of other settings. A manifest of stories
that change is withdrawn before they do: whenever a run is killed, the manifests
that are there fit the text and the items.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from speechbrain_slm.benchmarks.cloze_texts import ClozeItem, cloze_tables
from speechbrain_slm.stories.grammar.grammar import StoryGrammar, topic_endings
from speechbrain_slm.utils.numbers import check_choice
from speechbrain_slm.utils.speakers import SPEAKER_PER, draw_speaker
from speechbrain_slm.utils.tables import (
    stories_table,
    story_rows,
    write_stories,
)

logger = logging.getLogger(__name__)
SOURCES = ("mini",)
SPLITS = ("train", "valid", "cloze")
# The script's first name: it stands in the files of folders that are in use.
MAKER = "tinystories_prepare"


def prepare_grammar(
    folder: str | Path,
    source: str = "mini",
    languages: Sequence[str] = ("en", "fr"),
    seed: int = 0,
    plots: int | list[str] | None = None,
    characters: int | None = None,
    things: int | None = None,
    num_train: int = 6000,
    num_valid: int = 200,
    num_cloze: int = 600,
    speakers: Sequence[str] = ("anna", "bruno"),
    speaker_per: str = "story",
) -> dict:
    """Write the stories tables and the table of cloze items.

    ValueError if there are too few stories; FileExistsError if a file is in the
    way that another made: nothing is changed then.

    Arguments
    ---------
    folder
        Gets ``text/{train,valid,cloze}.parquet`` and ``items.parquet``. Loses
        the manifest ``<split>.parquet`` of a split whose stories change.
    source : ``mini``, the story grammar that comes with the package.
    plots : The grammar's first so many plots, those of these names, or all.
    characters, things : The first so many (things: of a plot), or all.
    num_cloze
        Test stories; each is an item of each benchmark in each direction.
    speakers : Who may tell a story; one is drawn for each.
    speaker_per
        ``story``, or ``sentence``: one is drawn for each sentence of the
        training and validation stories. A cloze item has always one.

    Returns
    -------
    The stories tables: split -> path.
    """
    check_choice("source", source, SOURCES)
    check_choice("speaker_per", speaker_per, SPEAKER_PER)
    grammar = StoryGrammar.load(
        plots=plots, characters=characters, things=things
    )
    tables = {}
    for split, number in (("train", num_train), ("valid", num_valid)):
        stories = grammar.generate(number, split, seed, languages)
        rows = _whole_stories(stories, seed, speakers, speaker_per)
        tables[split] = stories_table(list(rows), ["speaker", *languages])
    tests = grammar.generate(num_cloze, "test", seed, languages)
    items = [
        ClozeItem(
            story.story_id,
            {key: text[:-1] for key, text in story.sentences.items()},
            {key: text[-1] for key, text in story.sentences.items()},
            story.wrong_ending,
        )
        for story in tests
    ]
    tables["cloze"], items = cloze_tables(
        items, topic_endings(tests, seed), languages, seed, speakers
    )
    paths = write_stories(folder, tables, items, MAKER)
    logger.info(
        f"{num_train} training, {num_valid} validation and {num_cloze} cloze "
        f"stories; {len(items)} cloze items"
    )
    return paths


def _whole_stories(stories, seed, speakers, speaker_per):
    for story in stories:
        name = story.story_id
        teller = draw_speaker(seed, name, speakers)
        for row in story_rows(name, story.sentences, speaker=teller):
            if speaker_per == "sentence":
                number = row["sentence"]
                row["speaker"] = draw_speaker(seed, name, speakers, number)
            yield row
