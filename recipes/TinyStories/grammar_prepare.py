"""Write stories by the bundled grammar, and cloze items of them.

The text is made anew at each run: it takes seconds, is a pure function of the
arguments, and so can never be that of other settings. A manifest of stories
that change is withdrawn before they do: whenever a run is killed, the manifests
that are there fit the text and the items.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from speechbrain_slm.benchmarks.cloze_texts import ClozeItem, cloze_tables
from speechbrain_slm.stories.grammar.grammar import (
    TEST_SHARE,
    Story,
    StoryGrammar,
    topic_endings,
)
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
    test_share: float = TEST_SHARE,
    num_train: int = 6000,
    num_valid: int = 200,
    num_cloze: int = 600,
    speakers: Sequence[str] = ("anna", "bruno"),
    speaker_per: str = "story",
    grouped: bool = False,
    held_out_plots: Sequence[str] = (),
    num_voices: int = 0,
    new_speakers: Sequence[str] = (),
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
    plots
        The grammar's first so many plots, those of these names, or all that are
        not held out.
    characters, things : The first so many (things: of a plot), or all.
    test_share : Of combinations of plot, characters and thing, for the items.
    num_cloze
        Test stories; each is an item of each benchmark in each direction.
    speakers : Who may tell a story; one is drawn for each.
    speaker_per
        ``story``, or ``sentence``: one is drawn for each sentence of the
        training and validation stories. A cloze item has always one.
    grouped
        Items have a ``group``, the combination of plot, characters and thing,
        and a ``subset``, see `cloze_texts.shared_words`.
    held_out_plots
        Plots of none of the stories, but of as many items more: ``sSC-plots``
        and ``sTC-plots``.
    num_voices
        So many of the test stories become items again: ``sSC-voices`` and
        ``sTC-voices``, whose prompt and endings have two of the speakers, and
        ``sSC-speakers`` and ``sTC-speakers``, told by one of the new speakers.
    new_speakers : Who tells no other story.

    Returns
    -------
    The stories tables: split -> path.
    """
    check_choice("source", source, SOURCES)
    check_choice("speaker_per", speaker_per, SPEAKER_PER)
    if plots is None:
        known = StoryGrammar.load().plots
        plots = [one.name for one in known if one.name not in held_out_plots]
    grammar = StoryGrammar.load(None, plots, characters, things, test_share)
    trained = [plot.name for plot in grammar.plots]
    _check(trained, held_out_plots, num_voices, speakers, new_speakers)
    tables = {}
    for split, number in (("train", num_train), ("valid", num_valid)):
        stories = grammar.generate(number, split, seed, languages)
        rows = _whole_stories(stories, seed, speakers, speaker_per)
        tables[split] = stories_table(list(rows), ["speaker", *languages])
    tests = grammar.generate(num_cloze, "test", seed, languages)
    again = tests[:num_voices]
    sets = [(tests, speakers, ""), (again, speakers, "-voices")]
    sets.append((again if new_speakers else [], new_speakers, "-speakers"))
    if held_out_plots:
        others = StoryGrammar.load(None, held_out_plots, characters, things)
        # None of them is trained on, so any split will do; this one has most.
        unseen = [
            replace(story, story_id=story.story_id.replace("train", "test"))
            for story in others.generate(num_cloze, "train", seed, languages)
        ]
        sets.append((unseen, speakers, "-plots"))
    tables["cloze"], items = _cloze(sets, grammar, languages, seed, grouped)
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


def _cloze(sets, grammar, languages, seed, grouped):
    """Make the tables of items of [(stories, their speakers, suffix)]."""
    made = [
        cloze_tables(
            [_item(story, grammar, grouped) for story in stories],
            topic_endings(stories, seed),
            languages,
            seed,
            speakers,
            suffix,
            change_speaker=suffix == "-voices",
        )
        for stories, speakers, suffix in sets
        if stories
    ]
    return map(pa.concat_tables, zip(*made, strict=True))


def _item(story: Story, grammar: StoryGrammar, grouped: bool) -> ClozeItem:
    who = [story.plot, *sorted(story.characters), story.thing]
    names = {
        key: tuple(
            grammar.lexicon.characters[name].get(key, name)
            for name in story.characters
        )
        for key in story.sentences
    }
    return ClozeItem(
        story.story_id,
        {key: text[:-1] for key, text in story.sentences.items()},
        {key: text[-1] for key, text in story.sentences.items()},
        story.wrong_ending,
        **({"group": " ".join(who), "names": names} if grouped else {}),
    )


def _check(plots, held_out_plots, num_voices, speakers, new_speakers):
    """Refuse what would make a benchmark of what was trained on."""
    for key, told, unseen in (
        ("held_out_plots", plots, held_out_plots),
        ("new_speakers", speakers, new_speakers),
    ):
        if both := sorted({*told} & {*unseen}):
            raise ValueError(
                f"{key} has {', '.join(both)}, which the training stories "
                "have, too; name others"
            )
    if num_voices and len(speakers) < 2:
        raise ValueError(
            f"num_voices is {num_voices}, with the speaker(s) "
            f"{', '.join(speakers)}: an ending needs another one than its "
            "prompt; name two speakers or more, or set num_voices to 0"
        )
    if new_speakers and not num_voices:
        raise ValueError(
            f"new_speakers has {', '.join(new_speakers)}, and num_voices is 0: "
            "they would tell nothing; set num_voices, or leave them out"
        )
