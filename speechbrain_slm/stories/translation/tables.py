"""A stories table with one more language.

Shards of stories are translated by any number of ranks and array jobs, each
published when it is done; whoever runs next translates what is missing. When
all are there, the table is put together: a sentence and its translation stand
in one row, and a story that has no translation is left out whole, with its
reason in a ledger.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechbrain_slm.stories.translation import (
    Checks,
    Story,
    TranslationError,
    Translator,
)
from speechbrain_slm.stories.translation.assembly import (
    MAKER,
    assemble,
    output_schema,
)
from speechbrain_slm.stories.translation.parts import (
    PARTS,
    Shard,
    facts_of,
    find_parts,
    forget_rejected,
    read_part,
    read_shards,
    survey,
    write_part,
)
from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.distributed import is_main
from speechbrain_slm.utils.files import HeldFile, check_file
from speechbrain_slm.utils.jobs import (
    PLAN_JSON,
    Progress,
    Share,
    claim,
    missing,
    together,
)
from speechbrain_slm.utils.ledger import TooManyLeftOut
from speechbrain_slm.utils.ownership import refuse_foreign
from speechbrain_slm.utils.tables import STORIES

USAGE_JSON = "usage.json"
# A back-end that fails most of its first stories is not worth its money.
_TRIAL = 50


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
    """Add a language to a stories table, resuming what is there.

    Arguments
    ---------
    path_in : The table (Parquet); a story's rows stand together.
    path_out
        The table to write. ``<its name>.left_out.jsonl`` beside it names each
        story that is not in it.
    source_language, target_language : The text columns: read, and added.
    folder
        Gets ``plan.json``, the shards, and ``usage.json`` where there is
        something to count.
    checks : What translations are held against.
    leave_out : Columns that are not taken over.
    stories_per_shard : What a kill can lose of each rank's work.
    max_rejected : The share of stories that may be left out.
    job
        Translate the share of this array job alone, 0 to ``num_jobs - 1``;
        the table is put together by a run without it.
    num_jobs : Array jobs, which may run at the same time.

    Returns
    -------
    Numbers of ``stories`` and of those ``left_out``; None of an array
    job and of ranks other than the main one.

    Raises
    ------
    TooManyLeftOut
        If more stories are left out. A rerun tries them again.
    FileExistsError
        If what stands at ``path_out`` was not made by this recipe.
    FolderInUse
        If another process writes to the folder, unless both are array jobs.
    ValueError
        If the table is not what it should be, or the folder was begun with
        other settings.
    """
    path_in, path_out, folder = Path(path_in), Path(path_out), Path(folder)
    checks = checks or Checks()
    share = Share(job, num_jobs)
    expected = "a stories table (Parquet), as the text recipe writes"
    with claim(folder, share) as place, HeldFile(path_in, expected) as held:
        pinned = {}
        if is_main():
            facts = survey(held, source_language, stories_per_shard)
            output_schema(held, target_language, leave_out)
            refuse_foreign([path_out], MAKER)
            pinned = {
                **facts,
                "source_language": source_language,
                "target_language": target_language,
                "stories_per_shard": stories_per_shard,
                "checks": vars(checks),
                "translator": translator.identity,
            }
        # What the main rank has found in the table, the others read here.
        place.pin(pinned, f"**/{PARTS}")
        pinned = read_json(folder / PLAN_JSON)
        done = find_parts(folder)
        if is_main():
            # What is of another configuration is told before it costs anything.
            for path in done.values():
                read_part(path, pinned)
        num_shards = -(-pinned["stories"] // stories_per_shard)
        numbers = missing(range(num_shards), done.__contains__, share)
        columns = [*STORIES.names, source_language]
        shards = read_shards(held, columns, stories_per_shard)
        work = _Work(
            translator, checks, place.own, folder, pinned, max_rejected
        )
        with together():
            if numbers:
                work.translate(shards, numbers)
        work.write_usage()
        if not share.merges:
            return None
        schema = output_schema(held, target_language, leave_out)
        return assemble(held, path_out, folder, schema, pinned, max_rejected)


@dataclass
class _Work:
    """One rank's."""

    translator: Translator
    checks: Checks
    own: Path
    folder: Path
    pinned: dict
    max_rejected: float
    stories: int = 0
    rejected: int = 0
    example: str = ""

    def translate(self, shards: Iterator[Shard], numbers: list[int]) -> None:
        """Translate the shards of these numbers, and publish each."""
        wanted = set(numbers)
        pending: deque[tuple[int, list[Story]]] = deque()

        def stories() -> Iterator[list[Story]]:
            for number, shard in enumerate(shards):
                if number in wanted:
                    told = shard.stories(self.pinned["source_language"])
                    pending.append((number, told))
                    yield told

        progress = Progress(len(numbers))
        for answers in self.translator.translate(stories(), self.checks):
            # A back-end may have read ahead.
            number, told = pending.popleft()
            rows = [
                self._row(*pair) for pair in zip(told, answers, strict=True)
            ]
            write_part(self.own, number, rows, facts_of(self.pinned, told))
            progress.add(note=self._note)
            most = max(self.max_rejected, 0.5) * self.stories
            if self.stories >= _TRIAL and self.rejected > most:
                forget_rejected(self.own)
                raise TooManyLeftOut(
                    f"{self.rejected} of the first {self.stories} stories have "
                    f"no translation, the last: {self.example}"
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

    def _note(self) -> str:
        told = f"{self.stories} stories, {self.rejected} left out"
        if usage := self.write_usage():
            told += f"; used in all runs: {json.dumps(usage)}"
        return told

    def write_usage(self) -> dict:
        usage = self.translator.usage()
        if usage and is_main():
            write_json(self.folder / USAGE_JSON, usage)
        return usage
