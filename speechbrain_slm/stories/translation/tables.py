"""A stories table with one more language.

Shards of stories are translated by any number of ranks and array jobs, each
published when it is done; whoever runs next translates what is missing. When
all are there, the table is put together: a sentence and its translation stand
in one row, and a story that has no translation is left out whole, with its
reason in a ledger.
"""

import json
import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from speechbrain_slm.stories.translation import Checks, TranslationError
from speechbrain_slm.stories.translation.assembly import (
    MAKER,
    assemble,
    forget_rejected,
    output_schema,
)
from speechbrain_slm.stories.translation.parts import (
    PARTS,
    facts_of,
    find_parts,
    open_stories,
    read_part,
    read_shards,
    stories_of,
    survey,
    write_part,
)
from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.distributed import is_main
from speechbrain_slm.utils.files import check_file
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

logger = logging.getLogger(__name__)

USAGE_JSON = "usage.json"
# A back-end that fails most of its first stories is not worth its money.
_TRIAL = 50


def check_tables(paths: list[str | Path]) -> list[Path]:
    """Refuse tables that are none, or whose names would meet.

    Returns
    -------
    The same, each of them there.

    Raises
    ------
    FileNotFoundError
        If one does not exist.
    ValueError
        If there is none, or two have one name.
    """
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
    translator,
    folder: str | Path,
    checks: Checks | None = None,
    leave_out: Sequence[str] = (),
    stories_per_shard: int = 100,
    max_rejected: float = 0.01,
    job: int | None = None,
    num_jobs: int = 1,
) -> dict | None:
    """Add a language to a stories table, resuming what is there.

    Arguments
    ---------
    path_in : The table (Parquet); a story's rows stand together.
    path_out
        The table to write. ``<its name>.left_out.jsonl`` beside it names each
        story that is not in it.
    source_language : The text column to translate.
    target_language : The text column to add.
    translator : Translator
        The back-end.
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
    num_jobs : Number of array jobs, which may run at the same time.

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
    with claim(folder, share) as place, open_stories(path_in) as held:
        plan = {}
        if is_main():
            facts = survey(held, source_language, stories_per_shard)
            output_schema(held, target_language, leave_out)
            refuse_foreign([path_out], MAKER)
            plan = {
                **facts,
                "source_language": source_language,
                "target_language": target_language,
                "stories_per_shard": stories_per_shard,
                "checks": vars(checks),
                "translator": translator.identity,
            }
        # What the main rank has found in the table, the others read here.
        place.pin(plan, f"**/{PARTS}")
        plan = read_json(folder / PLAN_JSON)
        num_shards = -(-plan["stories"] // stories_per_shard)
        done = find_parts(folder)
        if is_main():
            # What is none of this plan is told before anything is paid for.
            for path in done.values():
                read_part(path, plan)
        numbers = missing(range(num_shards), done.__contains__, share)
        run = _Run(translator, checks, place.own, folder, max_rejected, plan)
        columns = [*STORIES.names, source_language]
        shards = read_shards(held, columns, stories_per_shard)
        with together():
            run.work(shards, numbers, source_language)
        _write_usage(translator, folder)
        if not share.merges:
            return None
        return assemble(
            held,
            path_out,
            (source_language, target_language),
            folder,
            output_schema(held, target_language, leave_out),
            plan,
            max_rejected,
        )


class _Run:
    """One rank's work."""

    def __init__(
        self, translator, checks, own, folder, max_rejected, plan
    ) -> None:
        self.translator = translator
        self.checks = checks
        self.own = own
        self.folder = folder
        self.plan = plan
        self.most = max(max_rejected, 0.5)
        self.stories = self.rejected = 0
        self.example = ""

    def work(self, shards, numbers, language) -> None:
        """Translate the shards of these numbers, and publish each."""
        if not numbers:
            return
        wanted, pending = set(numbers), deque()

        def stories():
            for number, (table, starts) in enumerate(shards):
                if number in wanted:
                    shard = stories_of(table, starts, language)
                    pending.append((number, shard))
                    yield shard

        progress = Progress(len(numbers))
        for answers in self.translator.translate(stories(), self.checks):
            number, shard = pending.popleft()
            rows = [
                self._row(story, answer)
                for story, answer in zip(shard, answers, strict=True)
            ]
            write_part(self.own, number, rows, facts_of(self.plan, shard))
            progress.add(note=self._note)
            if self.stories >= _TRIAL and (
                self.rejected > self.most * self.stories
            ):
                forget_rejected(self.own)
                raise TooManyLeftOut(
                    f"{self.rejected} of the first {self.stories} stories have "
                    f"no translation, the last: {self.example}"
                )

    def _row(self, story, answer):
        self.stories += 1
        try:
            if isinstance(answer, TranslationError):
                raise answer
            sentences, reason = self.checks(story.sentences, answer), None
        except TranslationError as error:
            sentences, reason = None, str(error)
            self.rejected += 1
            self.example = f"{story.story_id}: {reason}"
        return {
            "story_id": story.story_id,
            "sentences": sentences,
            "reason": reason,
        }

    def _note(self):
        usage = _write_usage(self.translator, self.folder)
        told = f"{self.stories} stories, {self.rejected} left out"
        if usage:
            told += f"; used in all runs: {json.dumps(usage)}"
        return told


def _write_usage(translator, folder):
    usage = translator.usage()
    if usage and is_main():
        write_json(folder / USAGE_JSON, usage)
    return usage
