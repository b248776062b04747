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
from pathlib import Path

from speechbrain_slm.stories.translation import (
    Checks,
    Story,
    TranslationError,
    Translator,
    parts,
)
from speechbrain_slm.stories.translation.assembly import (
    MAKER,
    assemble,
    output_schema,
)
from speechbrain_slm.utils import jobs
from speechbrain_slm.utils.atomic import read_json, write_json
from speechbrain_slm.utils.distributed import is_main
from speechbrain_slm.utils.files import HeldFile, check_file
from speechbrain_slm.utils.ledger import TooManyLeftOut
from speechbrain_slm.utils.ownership import refuse_foreign
from speechbrain_slm.utils.tables import STORIES

EXPECTED = "a stories table (Parquet), as the text recipe writes"
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
    """Add a language to a stories table; count ``stories`` and ``left_out``.

    Arguments
    ---------
    path_out : ``<its name>.left_out.jsonl`` beside it names what is not in it.
    source_language, target_language : The text columns: read, and added.
    folder : Gets ``plan.json``, the shards, and ``usage.json``.
    leave_out : Columns that are not taken over.
    stories_per_shard : What a kill can lose of each rank's work.
    max_rejected : The share of stories that may be left out.
    job, num_jobs : Translate the share of this array job, and stop.

    Raises
    ------
    TooManyLeftOut
        If more stories are left out. A rerun tries them again.
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
            output_schema(held, target_language, leave_out)
            refuse_foreign([path_out], MAKER)
            pinned = {
                **parts.survey(held, source_language, stories_per_shard),
                "source_language": source_language,
                "target_language": target_language,
                "stories_per_shard": stories_per_shard,
                "checks": vars(checks),
                "translator": translator.identity,
            }
        # What the main rank has found in the table, the others read here.
        place.pin(pinned, f"**/{parts.PARTS}")
        work = _Work(place, translator, checks, max_rejected)
        work.translate(held)
        if not share.merges:
            return None
        schema = output_schema(held, target_language, leave_out)
        return assemble(
            held, path_out, folder, schema, work.pinned, max_rejected
        )


class _Work:
    """One rank's."""

    def __init__(
        self,
        place: jobs.Claim,
        translator: Translator,
        checks: Checks,
        max_rejected: float,
    ) -> None:
        self.place, self.translator, self.checks = place, translator, checks
        # Half of the first stories may be a bad beginning, whatever is allowed.
        self.most = max(max_rejected, 0.5)
        self.pinned = read_json(place.folder / jobs.PLAN_JSON)
        self.stories = self.rejected = 0
        self.example = ""

    def translate(self, held: HeldFile) -> None:
        """Translate what is missing of this rank's share, and publish it."""
        done = parts.find_parts(self.place.folder)
        if is_main():
            for path in done.values():
                parts.read_part(path, self.pinned)
        per_shard = self.pinned["stories_per_shard"]
        num_shards = -(-self.pinned["stories"] // per_shard)
        share = self.place.share
        numbers = jobs.missing(range(num_shards), done.__contains__, share)
        language = self.pinned["source_language"]
        shards = parts.read_shards(held, [*STORIES.names, language], per_shard)
        pending: deque[tuple[int, list[Story]]] = deque()

        def stories() -> Iterator[list[Story]]:
            wanted = set(numbers)
            for number, shard in enumerate(shards if wanted else ()):
                if number in wanted:
                    pending.append((number, shard.stories(language)))
                    yield pending[-1][1]

        progress = jobs.Progress(len(numbers))
        with jobs.together():
            for answers in self.translator.translate(stories(), self.checks):
                # A back-end may have read ahead: two shards are pending then.
                number, told = pending.popleft()
                pairs = zip(told, answers, strict=True)
                rows = [self._row(*pair) for pair in pairs]
                facts = parts.facts_of(self.pinned, told)
                parts.write_part(self.place.own, number, rows, facts)
                progress.add(note=self._note)
                self._stop_early()
        self._write_usage()

    def _stop_early(self) -> None:
        if self.stories >= _TRIAL and self.rejected > self.most * self.stories:
            parts.forget_rejected(self.place.own)
            raise TooManyLeftOut(
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

    def _note(self) -> str:
        told = f"{self.stories} stories, {self.rejected} left out"
        if usage := self._write_usage():
            told += f"; used in all runs: {json.dumps(usage)}"
        return told

    def _write_usage(self) -> dict:
        usage = self.translator.usage()
        if usage and is_main():
            write_json(self.place.folder / USAGE_JSON, usage)
        return usage
