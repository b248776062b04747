"""Clean stories, cut them into sentences and write the stories tables.

A pure function of the source and the arguments, made anew at each run, as a
stream: in memory are a batch of stories, a part of each table, and 24 bytes a
story, by which duplicates are found. Nothing of the run before is touched until
this one has succeeded, and nothing that other recipes wrote ever is.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from speechbrain_slm.stories.cleaning import (
    MARKUP,
    LeftOut,
    clean_sentences,
    clean_story,
)
from speechbrain_slm.stories.duplicates import Seen, digest, digest_id
from speechbrain_slm.stories.segmentation import (
    LanguageRules,
    rules_of,
    segment,
)
from speechbrain_slm.stories.sources import RawStory, Source
from speechbrain_slm.utils.atomic import atomic_path, published_together
from speechbrain_slm.utils.jobs import lock_folder
from speechbrain_slm.utils.ledger import LEDGER, Ledger, open_ledger
from speechbrain_slm.utils.ownership import has_mark, mark_of, refuse_foreign
from speechbrain_slm.utils.speakers import draw_speaker
from speechbrain_slm.utils.tables import STORIES

logger = logging.getLogger(__name__)
# The ledger of a run that wrote no table.
REFUSED = "left_out.refused.jsonl"
MAKER = "text recipe"
ROW_GROUP = 32768  # sentences, and the rest of the last one's story
# Stories that are looked up at once: alone, each would cost a call of NumPy.
BATCH = 512


class _Prepared(NamedTuple):
    """A story after cleaning: its sentences, or why it is left out."""

    story_id: str
    place: str
    digest: int
    sentences: dict[str, list[str]]
    notes: list[tuple[str, str]]  # language, what was mended
    left_out: LeftOut | None


class _Table:
    """Row groups that end with a story, so that each can be read by itself."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.num_stories, self.num_sentences = 0, 0
        self._writer = writer
        self._columns: dict[str, list] = {n: [] for n in writer.schema.names}

    def add(
        self, story_id: str, speaker: str | None, told: dict[str, list[str]]
    ) -> None:
        """Add a story: language -> as many sentences as in the others."""
        length = len(next(iter(told.values())))
        columns = {"story_id": [story_id] * length, "sentence": range(length)}
        if speaker is not None:
            columns["speaker"] = [speaker] * length
        for name, cells in (columns | told).items():
            self._columns[name] += cells
        self.num_stories += 1
        self.num_sentences += length
        if len(self._columns["sentence"]) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        rows = pa.table(self._columns, schema=self._writer.schema)
        self._writer.write_table(rows)
        for column in self._columns.values():
            column.clear()


@contextlib.contextmanager
def _open_table(path: Path, names: list[str]) -> Iterator[_Table]:
    fields = [*STORIES, *((name, pa.string()) for name in names)]
    schema = pa.schema(fields, metadata=mark_of(MAKER))
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        table = _Table(writer)
        yield table
        table.flush()


def prepare_text(
    output_folder: str | Path,
    source: Source,
    rules: list[LanguageRules],
    seed: int = 0,
    shares: dict[str, float] | None = None,
    limit: int | None = None,
    min_sentences: int = 2,
    markup: str = MARKUP,
    speakers: list[str] | None = None,
) -> dict[str, Path]:
    """Write the stories tables of a source (split -> path), and the ledger.

    ValueError if two files of the source give one name to two stories, or a
    split gets none (``left_out.refused.jsonl`` says why). What is there stays.

    Arguments
    ---------
    output_folder : Gets ``text/<split>.parquet`` and ``left_out.jsonl``.
    shares
        split -> its share of the stories; ``train`` gets the rest. A hash of a
        story's id draws its split, so more stories move none.
    limit : Keep the first so many stories that pass.
    min_sentences, markup : Fewer, or one of these characters: left out.
    speakers : Who may tell a story; one is drawn for each (column ``speaker``).
    """
    shares = _checked({"valid": 0.01} if shares is None else shares, limit)
    chosen = {key: rules_of(key, rules) for key in source.languages}
    how = source.name, chosen, min_sentences, markup
    stories = (_prepare(story, *how) for story in source)
    folder = Path(output_folder)
    paths = {s: folder / "text" / f"{s}.parquet" for s in ("train", *shares)}
    names = [*(["speaker"] if speakers else []), *chosen]
    with lock_folder(folder / "text"):
        refuse_foreign(paths.values(), MAKER)
        with published_together(folder) as new:
            with contextlib.ExitStack() as files:
                tables = {}
                for split, path in paths.items():
                    table = _open_table(new / path.relative_to(folder), names)
                    tables[split] = files.enter_context(table)
                ledger = files.enter_context(open_ledger(new / LEDGER))
                kept = itertools.islice(_first_seen(stories, ledger), limit)
                for story_id, *_, told, _, _ in kept:
                    split, teller = draw_split(seed, story_id, shares), None
                    if speakers:
                        teller = draw_speaker(seed, story_id, speakers)
                    tables[split].add(story_id, teller, told)
            _report(tables, ledger, new / LEDGER, folder / REFUSED)
            # Tables of a run before never stand beside those of this one.
            for path in (folder / "text").glob("[!.]*.parquet"):
                if path not in paths.values() and has_mark(path, MAKER):
                    path.unlink()
        (folder / REFUSED).unlink(missing_ok=True)
    return paths


def _checked(shares: dict[str, float], limit: int | None) -> dict[str, float]:
    if limit is not None and limit < 1:
        raise ValueError(f"limit: found {limit}; expected 1 or more, or null")
    # A split of the YAML file can be switched off by 0.
    shares = {split: share for split, share in shares.items() if share != 0}
    if "train" in shares or not 0 <= sum(shares.values()) < 1:
        raise ValueError(
            f"shares: found {shares}; expected shares of splits other than "
            "'train', which gets the rest, with a sum below 1"
        )
    return shares


def _report(
    tables: dict[str, _Table], ledger: Ledger, path: Path, refused: Path
) -> None:
    """Log what was kept; refuse to publish a split without a story."""
    for reason, count in ledger.counts.most_common():
        logger.info("%d x %s", count, reason)
    kept = 0
    for split, table in tables.items():
        counts = table.num_stories, table.num_sentences
        logger.info("%s: %d stories, %d sentences", split, *counts)
        kept += table.num_stories
    if empty := [s for s, table in tables.items() if not table.num_stories]:
        os.replace(path, refused)
        raise ValueError(
            f"no story for {', '.join(empty)}: {kept} were kept. Take more, or "
            f"larger shares; {refused} says why others were left out."
        )


def _prepare(
    story: RawStory,
    name: str,
    rules: dict[str, LanguageRules],
    min_sentences: int = 2,
    markup: str = MARKUP,
) -> _Prepared:
    """Clean a story and cut it into sentences: a pure function."""
    notes: list[tuple[str, str]] = []
    try:
        sentences = _sentences(story, rules, markup, notes)
        counts = {key: len(told) for key, told in sentences.items()}
        if len(set(counts.values())) > 1:
            raise LeftOut("unequal numbers of sentences", str(counts))
        if min(counts.values()) < min_sentences:
            raise LeftOut("too few sentences", str(min(counts.values())))
        left_out, words = None, " ".join(next(iter(sentences.values())))
    except LeftOut as error:
        # By what there is, so that the ledger can name it.
        sentences, left_out, words = {}, error, str(story.texts)
    number = digest(words)
    # Named by its text where it has no id, so that a duplicate has the same.
    story_id = story.story_id or f"{name}-{number:016x}"
    return _Prepared(story_id, story.place, number, sentences, notes, left_out)


def _sentences(
    story: RawStory,
    rules: dict[str, LanguageRules],
    markup: str,
    notes: list[tuple[str, str]],
) -> dict[str, list[str]]:
    if story.fault:
        raise LeftOut("no row", story.fault)
    # Nothing says that both texts are cut in the same places.
    plain = any(isinstance(text, str) for text in story.texts.values())
    if plain and len(story.texts) > 1:
        raise LeftOut("several languages, not cut into sentences")
    sentences = {}
    for language, text in story.texts.items():
        try:
            if isinstance(text, list):
                told, mended = clean_sentences(text, rules[language], markup)
            elif isinstance(text, str):
                text, mended = clean_story(text, rules[language], markup)
                told = segment(text, rules[language])
            else:
                raise LeftOut("no text", repr(text)[:40])
        except LeftOut as error:
            error.language = language
            raise
        sentences[language] = told
        notes += [(language, note) for note in mended]
    return sentences


def _first_seen(
    stories: Iterable[_Prepared], ledger: Ledger
) -> Iterator[_Prepared]:
    """Yield the stories to keep; write of the others to the ledger."""
    texts, names, names_of_files = Seen(), Seen(), Seen()
    stories = iter(stories)
    while batch := list(itertools.islice(stories, BATCH)):
        good = [story for story in batch if story.left_out is None]
        told = [(s.place.rpartition(", row ")[0], s.story_id) for s in good]
        first = zip(
            texts.add([story.digest for story in good]),
            names.add([digest_id(story.story_id) for story in good]),
            names_of_files.add([digest_id(*one) for one in told]),
            strict=True,
        )
        for story in batch:
            error = story.left_out or _again(story, *next(first))
            where = {"story_id": story.story_id, "place": story.place}
            if error is not None:
                ledger.write(**where, action="dropped", **vars(error))
                continue
            for language, note in story.notes:
                said = {"language": language, "reason": note}
                ledger.write(**where, action="kept", **said)
            yield story


def _again(
    story: _Prepared, new_text: bool, new_name: bool, new_in_file: bool
) -> LeftOut | None:
    """Say why a good story is left out; refuse what would lose stories."""
    if not new_text:
        return LeftOut("duplicate")
    if new_name:
        return None
    # Two files that both count from 0: half of all stories would go.
    if new_in_file:
        raise ValueError(
            f"{story.place}: another file has another story of the name "
            f"'{story.story_id}'. Give the stories names of their own, or "
            "leave out id_column: they are named by their text then."
        )
    return LeftOut("another story has this story_id")


def draw_split(seed: int, story_id: str, shares: dict[str, float]) -> str:
    """Draw a story's split, which depends on nothing else."""
    # 0.0042 with {"valid": 0.01} is in valid, 0.0142 in train.
    place = digest_id(seed, "split", story_id) / 2**64
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    return "train"
