"""A stories table with one more language.

Ranks and array jobs translate shards of stories; whoever runs next translates
what is missing. When all are there, the table is put together: a sentence and
its translation stand in one row, and a story without is left out whole.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speechbrain_slm.stories.translation import (
    Checks,
    Story,
    TranslationError,
    Translator,
    parts,
)
from speechbrain_slm.utils import jobs, ledger
from speechbrain_slm.utils.atomic import (
    published_together,
    read_json,
    write_json,
)
from speechbrain_slm.utils.columns import parquet_of
from speechbrain_slm.utils.distributed import is_main
from speechbrain_slm.utils.files import HeldFile, check_file
from speechbrain_slm.utils.ownership import mark_of, refuse_foreign
from speechbrain_slm.utils.pieces import write_piece
from speechbrain_slm.utils.tables import STORIES

logger = logging.getLogger(__name__)
EXPECTED = "a stories table (Parquet), as the text recipe writes"
MAKER = "translation recipe"
USAGE_JSON = "usage.json"
# A back-end that fails most of its first stories is not worth its money.
_TRIAL = 50
_ROWS = 65536  # in a row group of the result


def check_tables(paths: list[str | Path]) -> list[Path]:
    """Refuse tables of which one is missing, or two have one name."""
    names = {Path(path).stem for path in paths}
    if not paths or len(names) < len(paths):
        raise ValueError(
            f"tables is {list(map(str, paths))}; expected one or more, each "
            "of another name: what is written is named after them"
        )
    return [check_file(path, "a stories table") for path in paths]


def translate_table(
    path_in: str | Path,
    path_out: str | Path,
    source_language: str,
    target_language: str,
    translator: Translator,
    folder: str | Path,
    checks: Checks | None = None,
    leave_out: Sequence[str] = (),
    stories_per_shard: int = 100,
    max_rejected: float = 0.01,
    job: int | None = None,
    num_jobs: int = 1,
) -> dict[str, int] | None:
    """Add a language to a stories table; count ``stories`` and ``left_out``.

    `TooManyLeftOut` if more stories are left out; a rerun tries them again.

    Arguments
    ---------
    path_out : ``<its name>.left_out.jsonl`` beside it names what is not in it.
    source_language, target_language : The text columns: read, and added.
    folder : Gets ``plan.json``, the shards, and ``usage.json``.
    leave_out : Columns that are not taken over.
    stories_per_shard : What a kill can lose of each rank's work.
    max_rejected : The share of stories that may be left out.
    job, num_jobs : Translate the share of this array job, and stop.
    """
    path_out, folder, checks = Path(path_out), Path(folder), checks or Checks()
    share = jobs.Share(job, num_jobs)
    with (
        jobs.claim(folder, share) as place,
        HeldFile(path_in, EXPECTED) as held,
    ):
        pinned = {}
        if is_main():
            # All that can be refused is, before anything is paid for.
            _output_schema(held, target_language, leave_out)
            refuse_foreign([path_out], MAKER)
            pinned = {
                **parts.survey(held, source_language, stories_per_shard),
                "source_language": source_language,
                "target_language": target_language,
                "stories_per_shard": stories_per_shard,
                "checks": vars(checks),
                "translator": translator.identity,
            }
        place.pin(pinned, f"**/{parts.PARTS}")
        # What the main rank has found in the table, the others read here.
        pinned = read_json(folder / jobs.PLAN_JSON)
        work = _Work(held, place, pinned, translator, checks, max_rejected)
        work.translate()
        if not share.merges:
            return None
        schema = _output_schema(held, target_language, leave_out)
        return work.assemble(path_out, schema)


def _output_schema(
    held: HeldFile, target_language: str, leave_out: Sequence[str]
) -> pa.Schema:
    """Return the columns of the new table, the added one last."""
    with parquet_of(held) as file:
        found = file.schema_arrow
    if unknown := set(leave_out) - set(found.names):
        raise ValueError(
            f"{held.path} has no column(s) {', '.join(sorted(unknown))} to "
            f"leave out; found {', '.join(found.names)}"
        )
    kept = {field.name: field for field in found} | {f.name: f for f in STORIES}
    names = [name for name in found.names if name not in leave_out]
    if target_language in names:
        raise ValueError(
            f"{held.path} has a column '{target_language}' already; add it to "
            "leave_out to have it made anew"
        )
    added = pa.field(target_language, pa.string())
    fields = [*map(kept.__getitem__, names), added]
    return pa.schema(fields, metadata=mark_of(MAKER))


@dataclass
class _Work:
    """A table that gets a language, and how far this rank is."""

    held: HeldFile
    place: jobs.Claim
    pinned: dict
    translator: Translator
    checks: Checks
    max_rejected: float
    stories: int = 0
    rejected: int = 0
    example: str = ""

    def _shards(self, columns: Sequence[str]) -> Iterator[parts.Shard]:
        # The source is read even where it is left out: by it a part is known.
        wanted = list(dict.fromkeys([*columns, self.pinned["source_language"]]))
        per_shard = self.pinned["stories_per_shard"]
        return parts.read_shards(self.held, wanted, per_shard)

    def translate(self) -> None:
        """Translate what is missing of this rank's share, and publish it."""
        done = parts.find_parts(self.place.folder)
        if is_main():
            for path in done.values():
                parts.read_part(path, self.pinned)
        stories, size = self.pinned["stories"], self.pinned["stories_per_shard"]
        share, language = self.place.share, self.pinned["source_language"]
        all_shards = range(-(-stories // size))
        numbers = jobs.missing(all_shards, done.__contains__, share)
        pending: deque[tuple[int, list[Story]]] = deque()

        def missing() -> Iterator[list[Story]]:
            wanted = set(numbers)
            shards = self._shards(STORIES.names) if wanted else ()
            for number, shard in enumerate(shards):
                if number in wanted:
                    pending.append((number, shard.stories(language)))
                    yield pending[-1][1]

        progress = jobs.Progress(len(numbers))
        with jobs.together():
            for answers in self.translator.translate(missing(), self.checks):
                # A back-end may have read ahead: two shards are pending then.
                number, told = pending.popleft()
                pairs = zip(told, answers, strict=True)
                rows = [self._row(*pair) for pair in pairs]
                table = pa.Table.from_pylist(rows, schema=parts.PART)
                name = parts.PARTS.replace("*", f"{number:07d}")
                facts = parts.facts_of(self.pinned, told)
                write_piece(self.place.own / name, table, facts)
                progress.add(note=self._note_usage)
                self._stop_early()
        self._note_usage()

    def _stop_early(self) -> None:
        # Half of the first stories may be a bad beginning, whatever is allowed.
        most = max(self.max_rejected, 0.5) * self.stories
        if self.stories >= _TRIAL and self.rejected > most:
            parts.forget_rejected(self.place.own)
            raise ledger.TooManyLeftOut(
                f"{self.rejected} of the first {self.stories} stories have no "
                f"translation, the last: {self.example}"
            )

    def _row(self, story: Story, answer: list[str] | TranslationError) -> dict:
        self.stories += 1
        row = {"story_id": story.story_id, "sentences": None, "reason": None}
        try:
            if isinstance(answer, TranslationError):
                raise answer
            return row | {"sentences": self.checks(story.sentences, answer)}
        except TranslationError as error:
            self.rejected += 1
            self.example = f"{story.story_id}: {error}"
            return row | {"reason": str(error)}

    def _note_usage(self) -> str:
        told = f"{self.stories} stories, {self.rejected} left out"
        if usage := self.translator.usage():
            told += f"; used in all runs: {json.dumps(usage)}"
            if is_main():
                write_json(self.place.folder / USAGE_JSON, usage)
        return told

    def assemble(self, path_out: Path, schema: pa.Schema) -> dict[str, int]:
        """Put the table together from its parts, and write the ledger.

        ValueError if a part is damaged, or of other stories, or no story is
        left; the table is not written then, nor with `TooManyLeftOut`.
        """
        path = path_out.with_suffix(f".{ledger.LEDGER}")
        # That of the table which is there, if one is, stays beside it.
        refused = path_out.with_suffix(".left_out.refused.jsonl")
        with published_together(path_out.parent) as new:
            with ledger.open_ledger(new / path.name) as lines:
                self._write(new / path_out.name, schema, lines)
            stories, left_out = self.pinned["stories"], lines.counts.total()

            def forget() -> None:
                parts.forget_rejected(self.place.folder)
                os.replace(new / path.name, refused)

            ledger.check_share(
                f"stories of {self.held.path}",
                *(left_out, stories, self.max_rejected, str(lines), refused),
                "Mend the cause and run again: they are tried again.",
                *(forget, "max_rejected"),
            )
            if left_out == stories:
                raise ValueError(f"{self.held.path}: no story is translated")
        refused.unlink(missing_ok=True)
        told = stories - left_out, left_out, path.name
        logger.info("%s: %d stories, %d left out (%s)", path_out, *told)
        return {"stories": stories, "left_out": left_out}

    def _write(
        self, path: Path, schema: pa.Schema, lines: ledger.Ledger
    ) -> None:
        # Shards of some hundred rows are too small for a row group each.
        waiting = schema.empty_table()
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in self._joined(schema, lines):
                waiting = pa.concat_tables([waiting, table])
                if len(waiting) >= _ROWS:
                    writer.write_table(waiting)
                    waiting = schema.empty_table()
            if len(waiting):
                writer.write_table(waiting)

    def _joined(
        self, schema: pa.Schema, lines: ledger.Ledger
    ) -> Iterator[pa.Table]:
        """Yield the new table's rows, shard by shard; list what is left out."""
        paths, pinned = parts.find_parts(self.place.folder), self.pinned
        *columns, target = schema.names
        for number, shard in enumerate(self._shards(columns)):
            part, facts = parts.read_part(paths[number], pinned)
            told = shard.stories(pinned["source_language"])
            if facts != parts.facts_of(pinned, told):
                raise ValueError(
                    f"{paths[number]} is not of these stories; remove it, run "
                    "again"
                )
            # A story without a translation has null: [["Un.", "Deux."], null].
            kept = part["reason"].is_null()
            for row in part.filter(pc.invert(kept)).to_pylist():
                where = {"story_id": row["story_id"], "language": target}
                lines.write(**where, action="dropped", reason=row["reason"])
            added = part["sentences"].filter(kept)
            # Else a sentence would stand beside the translation of another.
            counts = pc.list_value_length(added).to_numpy()
            if not np.array_equal(counts, shard.lengths[kept.to_numpy()]):
                raise ValueError(f"{paths[number]} is not sentence by sentence")
            rows = np.repeat(kept.to_numpy(), shard.lengths)
            table = shard.table.select(columns).filter(pa.array(rows))
            table = table.append_column(target, pc.list_flatten(added))
            yield table.cast(schema)
