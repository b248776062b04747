"""From a codec's published codes to unit stores: nothing is encoded.

Two passes. The first reads the sources in parts, which processes share, and
writes down the units of each; a second run reads what has changed. The second
puts parts together to the files of a store. Memory is that of some rows and of
a file's units.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from speechbrain_slm.units.character_rows import STORIES, Columns, Reader
from speechbrain_slm.units.characters import Layout
from speechbrain_slm.units.tokenizers.codec import Codec, describe_codec
from speechbrain_slm.utils import ledger as left_out
from speechbrain_slm.utils.atomic import remove_temporary
from speechbrain_slm.utils.distributed import barrier, is_main, rank, world_size
from speechbrain_slm.utils.hashing import identity_of
from speechbrain_slm.utils.jobs import PARTS, Share, claim, deal, run, together
from speechbrain_slm.utils.pieces import (
    Piece,
    find_piece,
    read_piece,
    write_piece,
)
from speechbrain_slm.utils.scratch import digests
from speechbrain_slm.utils.store import StoreWriter
from speechbrain_slm.utils.store_format import schema
from speechbrain_slm.utils.table_parts import table_parts

logger = logging.getLogger(__name__)
_STORY = ["story_id", "language"]


class _Part(NamedTuple):
    """What is known of a part that was read."""

    path: Path
    facts: dict
    twice: np.ndarray  # of each row: whether its story stands before it
    again: list[dict]  # the stories of these


def import_units(
    sources: dict[str, Any],
    units_folder: str | Path,
    tokenizer: Codec,
    layout: Layout,
    columns: Columns,
    like: str | Path | None = None,
    language_names: dict[str, str] | None = None,
    aligned: bool = False,
    max_left_out: float = 0.0,
    batch_rows: int = 64,
    stories_per_shard: int = 5000,
    job: int | None = None,
    num_jobs: int = 1,
) -> None:
    """Make a unit store of each split's sources; resume what is there.

    Arguments
    ---------
    sources
        Split -> {language: [source, ...]}, or a list where ``columns`` names
        one of the language; see :func:`table_parts`.
    like
        A unit store that was made with the codec; its weights are not needed.
    language_names : The source's name of a language -> ours; empty: all, as is.
    aligned
        Whether rows of one name in two languages tell one story, sentence by
        sentence. If not, stories are named after their language, too.
    max_left_out : Share of a split's rows; with 0 the first ends the run.
    batch_rows : Rows held at once.
    stories_per_shard
        In a file of a store, at least: parts of a source stay whole.
    job, num_jobs : See :class:`speechbrain_slm.utils.jobs.Share`.
    """
    folder, share = Path(units_folder), Share(job, num_jobs)
    listed = _list_sources(sources, columns)
    described = describe_codec(tokenizer, like)
    _check_codec(described, tokenizer, layout)
    codec = tokenizer.num_codebooks, tokenizer.deduplicated
    names = dict(language_names or {})
    reader = Reader(columns, layout, names, aligned, *codec, max_left_out)
    with claim(folder / PARTS, share) as place:
        if share.merges:
            for inner in place.folder.glob("**/"):
                remove_temporary(inner)
        pieces: dict[str, dict[Path, str]] = {}
        with together():
            for split, here in listed.items():
                told = (here, place.folder / split, reader, batch_rows, share)
                pieces[split] = dict(_read_all(*told))
        if job is not None:
            return
        parts = {split: _survey(found) for split, found in pieces.items()}
        if is_main():
            _publish_ledger(folder, parts, max_left_out)
        barrier()
        for split, found in parts.items():
            _write_store(folder / split, found, described, stories_per_shard)


def _check_codec(described: dict, codec: Codec, layout: Layout) -> None:
    wanted = codec.num_codebooks
    size = described["vocabulary_size"] // wanted
    if size != layout.codebook_size or wanted > layout.num_codebooks:
        raise ValueError(
            f"units: {wanted} codebook(s) of {size} are asked for; the layout "
            f"has {layout.num_codebooks} of {layout.codebook_size}. Name the "
            "codec whose codes these are."
        )


def _list_sources(
    sources: dict[str, Any], columns: Columns
) -> dict[str, list[tuple[str, str]]]:
    """Return each source of a split with its language; ValueError if odd."""
    named = columns.language
    expected = "[source, ...]" if named else "{language: [source, ...]}"
    listed = {}
    # So that a split of the YAML file can be switched off.
    for split in (name for name, here in sources.items() if here is not None):
        here = sources[split]
        here = {"": here} if named else here
        good = isinstance(here, Mapping) and here
        if not good or not all(isinstance(one, list) for one in here.values()):
            raise ValueError(
                f"sources: {split} is {sources[split]!r}; expected {expected}, "
                f"as columns.language is {named}"
            )
        listed[split] = [(name, one) for name in here for one in here[name]]
    if not listed:
        raise ValueError(f"sources is empty; expected {{split: {expected}}}")
    return listed


def _read_all(
    listed: list[tuple[str, str]],
    folder: Path,
    reader: Reader,
    batch_rows: int,
    share: Share,
) -> Iterator[tuple[Path, str]]:
    """Read this process's parts; yield where each part of all is, and what."""
    # How much may be left out changes nothing of what is read.
    request = {**asdict(reader), "max_left_out": None}
    turn = 0
    for number, (language, source) in enumerate(listed):
        parts = table_parts(source, batch_rows, reader.columns.names())
        for index, part in enumerate(parts):
            part = part._replace(name=f"{number:03d}-{part.name}")
            path = folder / f"{part.name}.parquet"
            told = [part.identity, part.where, part.name, language, request]
            identity = identity_of(told)
            yield path, identity
            job, place = divmod(turn, world_size())
            turn += 1
            if place != rank() or share.job not in (None, job % share.num_jobs):
                continue
            there = find_piece(path, [])
            if there and there.facts["identity"] == identity:
                continue
            found = reader.read(part, language, first=not index)
            table = pa.Table.from_batches(found.batches, STORIES)
            facts: dict = {"identity": identity, "where": part.where}
            facts |= {"content": _digest(table), "counts": found.counts}
            write_piece(path, table, {**facts, "ledger": found.ledger})
            shown = (rank(), part.where, part.name, len(table))
            logger.info("Rank %d: %s, part %s: %d stories", *shown)


def _digest(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _read_again(
    path: Path, identity: str, columns: list[str] | None = None
) -> Piece:
    piece = read_piece(path, columns)
    if piece.facts["identity"] != identity:
        raise ValueError(
            f"{path} is of other rows than this process has seen: the source "
            "was changed during the run. Run the same command again; what has "
            "not changed is kept."
        )
    return piece


def _survey(pieces: dict[Path, str]) -> list[_Part]:
    """Find the stories that stand twice in a language."""
    found = [_read_again(*one, _STORY) for one in pieces.items()]
    names = (
        pc.binary_join_element_wise(*piece.table.columns, "\0")
        for piece in found
    )
    keys = [digests(name.combine_chunks()) for name in names]
    bounds = np.cumsum([0, *map(len, keys)])
    twice = np.ones(bounds[-1], bool)
    twice[np.unique(np.concatenate(keys), return_index=True)[1]] = False
    masks = np.split(twice, bounds[1:-1])
    return [
        _Part(path, facts, mask, table.filter(pa.array(mask)).to_pylist())
        for path, (table, facts), mask in zip(pieces, found, masks, strict=True)
    ]


def _publish_ledger(
    folder: Path, parts: dict[str, list[_Part]], max_left_out: float
) -> None:
    """Write the ledger of all splits; stop where too much is left out."""
    counts = {split: Counter[str]() for split in parts}
    path = folder / left_out.LEDGER
    again: dict = {"action": "dropped"}
    again["reason"] = "its name stands before it, too"
    with left_out.open_ledger(path) as ledger:
        for split, found in parts.items():
            for part in found:
                place = {**again, "place": part.facts["where"]}
                twice = ({**row, **place} for row in part.again)
                for entry in (*part.facts["ledger"], *twice):
                    ledger.write(split=split, **entry)
                counts[split].update(part.facts["counts"])
                counts[split]["lost"] += len(part.again)
    for split, count in counts.items():
        if count["rows"] == count["lost"]:
            raise ValueError(
                f"No story of {split} is left of {count['rows']} rows, and "
                f"{count['others']} of other names or languages. {path} says "
                "more; correct 'columns', 'layout' or 'sources'."
            )
        left_out.check_share(
            f"rows of {split}",
            count["lost"],
            count["rows"],
            max_left_out,
            ledger.reasons[split],
            path,
            "Mend the source and run again; what is good is not read again.",
        )


def _write_store(
    folder: Path, parts: list[_Part], described: dict, stories_per_shard: int
) -> None:
    kept = np.array([np.count_nonzero(~part.twice) for part in parts])
    # 5 a file, parts of 3, 3, 0, 4: the first two, then the last.
    begins = (np.cumsum(kept) - kept) // stories_per_shard
    shards = np.unique(begins[kept > 0])
    source = identity_of([part.facts["content"] for part in parts])
    plan = (described, source, len(shards), stories_per_shard)
    with claim(folder):
        if is_main():
            # The ranks that come later find the plan.
            StoreWriter(folder, *plan)
        barrier()
        writer = StoreWriter(folder, *plan)

        def write(index: int) -> None:
            here = np.flatnonzero((begins == shards[index]) & (kept > 0))
            writer.publish(index, _stories([parts[n] for n in here]))

        run(deal(writer.missing()), write, "shards of the store")
        if is_main():
            info = writer.finish(num_rows=int(kept.sum()))
            logger.info("%s: %s", folder, info["counts"])
        barrier()


def _stories(parts: list[_Part]) -> pa.RecordBatch:
    tables = (
        _read_again(part.path, part.facts["identity"]).table.filter(
            pa.array(~part.twice)
        )
        for part in parts
    )
    table = pa.concat_tables(tables).combine_chunks()
    longest = pc.max(pc.list_value_length(table["units"])).as_py()
    batches = table.cast(schema(longest)).to_batches()
    if len(batches) > 1:
        raise ValueError(
            f"{parts[0].path} and those after it hold too many units for a "
            "file of a store; set stories_per_shard lower"
        )
    return batches[0]
