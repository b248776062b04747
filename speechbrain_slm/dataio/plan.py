"""The token plan: which tokens stand in which training step.

A run is a list of stages, each a token budget and a mixture of sources. A
source's rows are numbered; the rows of a stage are dealt out to its sources
as evenly as the mixture allows, and every source goes on where the stage
before left it. All of it is a pure function of (stores, configuration, seed,
step): a restart, or another number of ranks, trains on the same tokens at the
same step.

Example: row_length 4, rows_per_step 2, one stage of 16 tokens with
``{en: 0.5, fr: 0.5}`` gives two steps; each trains on one row of ``en`` and
one row of ``fr``, rows 0 and 0 in the first step, 1 and 1 in the second.
"""

import itertools
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechbrain_slm.dataio.packing import PACKINGS, BestFit, Concatenated
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.dataio.settings import (
    check_sources,
    check_stages,
    check_tokenizers,
    described,
)
from speechbrain_slm.dataio.source import Source
from speechbrain_slm.utils.numbers import check_choice, check_number

logger = logging.getLogger(__name__)
# The kinds of tokens beside the units of each language.
OTHERS = ("boundary", "tag", "padding")
# Twice the square of it is the largest number that dealing meets, in 64 bits.
MOST_ROWS = 1 << 30


class Stage:
    """The rows of a stage, and how they are dealt out to the sources of a run.

    Arguments
    ---------
    stage : One that :func:`check_stages` lets pass.
    names : The sources of the run, in the order of the columns.

    Example
    -------
    >>> half = {"tokens": 48, "mixture": {"en": 0.5, "fr": 0.5}}
    >>> stage = Stage(half, ["en", "fr"], 4, 3)
    >>> stage.steps, stage.shares.tolist()
    (4, [6, 6])
    >>> stage.dealt([0, 3, 6]).tolist()
    [[0, 0], [2, 1], [3, 3]]
    """

    def __init__(
        self,
        stage: dict,
        names: Sequence[str],
        row_length: int,
        rows_per_step: int,
    ) -> None:
        # Tokens are rounded to whole steps.
        self.steps = stage.get("steps") or max(
            1, round(stage["tokens"] / (row_length * rows_per_step))
        )
        self.rows = self.steps * rows_per_step
        if self.rows > MOST_ROWS:
            raise ValueError(
                f"A stage of {self.rows:,} rows is too long: at most "
                f"{MOST_ROWS:,} can be dealt out. Split it into several."
            )
        weights = np.array([stage["mixture"].get(n, 0) for n in names], float)
        exact = weights / weights.sum() * self.rows
        # Rows of each source. Largest remainders; a tie goes to the source
        # that stands first.
        self.shares = np.floor(exact).astype(np.int64)
        order = np.argsort(-(exact - self.shares), kind="stable")
        self.shares[order[: self.rows - self.shares.sum()]] += 1

    def dealt(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return how many of the first rows each source has, [N, sources].

        The first source's k-th of n rows stands in the middle of the k-th
        n-th of the stage; the others share what it leaves in the same way.
        """
        # Nothing is kept: a stage may have millions of rows. In integers, so
        # that the sources' rows add up to all exactly.
        before, left, found = np.asarray(rows, dtype=np.int64), self.rows, []
        for share in self.shares.tolist():
            mine = (2 * before * share + left) // max(1, 2 * left)
            found.append(mine)
            before, left = before - mine, left - share
        return np.stack(found, axis=1)


class TokenPlan:
    """Rows of tokens for every optimizer step of a run.

    Arguments
    ---------
    stores : Source -> training stories.
    sources
        Name -> ``{languages: [...]}`` and, optionally, other arguments of
        :class:`speechbrain_slm.dataio.source.Source`.
    stages
        ``{tokens: N, mixture: {source: weight}}`` in the order of training.
        Weights are shares of the stage's tokens; they need not sum to 1. A
        budget is rounded to whole steps, or given as ``steps: N``.
    rows_per_step : Of one optimizer step, over all ranks.
    packing : A key of ``PACKINGS``.
    language_tags : Languages that get a tag of their own.
    """

    def __init__(
        self,
        stores: dict[str, UnitStore],
        sources: dict,
        stages: list[dict],
        row_length: int,
        rows_per_step: int,
        seed: int,
        packing: str = "concatenate",
        language_tags: Sequence[str] = (),
    ) -> None:
        check_number("row_length", row_length, at_least=2, whole=True)
        check_number("rows_per_step", rows_per_step, at_least=1, whole=True)
        check_number("seed", seed, at_least=0, whole=True)
        check_choice("packing", packing, PACKINGS)
        check_sources(sources, language_tags)
        used = check_stages(stages, sources)
        self.row_length, self.rows_per_step = row_length, rows_per_step
        self.seed, self.packing = seed, packing
        self._settings, self._stores = sources, stores
        # What the packings remember grows in the calls, and rows are built in
        # a thread while others are counted.
        self._lock = threading.Lock()
        first = next(iter(stores.values()))
        check_tokenizers(stores, first)
        self.tokenizer_identity = first.identity
        self.tokenizer = first.info["tokenizer"]
        self.units_folder = Path(first.folder).parent
        # Symbols: the units, the boundary before each story, then the tags.
        self.vocabulary_size = self.boundary = first.vocabulary_size
        self.language_tags = {
            name: number
            for number, name in enumerate(language_tags, self.boundary + 1)
        }
        self.num_symbols = self.boundary + 1 + len(self.language_tags)
        self.sources = {name: self._open(stores, name) for name in used}
        self._stages = [
            Stage(stage, used, row_length, rows_per_step) for stage in stages
        ]
        # The first step of every stage and, last, the number of steps.
        self.first_steps = np.cumsum([0, *(s.steps for s in self._stages)])
        self.num_steps = int(self.first_steps[-1])
        # Rows of each source before each stage, [stages + 1, sources].
        self._rows_before = np.cumsum(
            [np.zeros(len(used), int), *(s.shares for s in self._stages)], 0
        )
        self.identity: dict[str, Any] = {
            "stores": {name: stores[name].info["identity"] for name in used},
            "tokenizer": first.identity,
            "sources": {name: described(sources[name]) for name in used},
            "stages": [{**s, "mixture": dict(s["mixture"])} for s in stages],
            "row_length": row_length,
            "rows_per_step": rows_per_step,
            "packing": packing,
            "language_tags": list(language_tags),
            "seed": seed,
        }

    def _open(
        self, stores: dict[str, UnitStore], name: str
    ) -> Concatenated | BestFit:
        settings = dict(self._settings[name])
        settings.pop("units_folder", None)
        ids = self.language_tags
        tags = [ids[n] for n in settings["languages"]] if ids else None
        source = Source(stores[name], seed=self.seed, tags=tags, **settings)
        return PACKINGS[self.packing](source, self.row_length, self.boundary)

    def _locate(self, step: int) -> tuple[int, int]:
        """Return the stage of a step, and its number there."""
        if not 0 <= step < self.num_steps:
            raise IndexError(
                f"Step {step} is outside this run of {self.num_steps} steps"
            )
        stage = int(np.searchsorted(self.first_steps, step, "right")) - 1
        return stage, step - int(self.first_steps[stage])

    def rows(self, step: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
        """Build the rows that one rank trains on in one optimizer step.

        They are int64, ``[rows_per_step / world_size, row_length]``.
        """
        if self.rows_per_step % world_size:
            raise ValueError(
                f"rows_per_step is {self.rows_per_step}, which {world_size} "
                "ranks cannot divide; change one of them"
            )
        stage, local = self._locate(step)
        share = self.rows_per_step // world_size
        # A rank takes a run of the global batch's rows, which are the same
        # whatever the number of ranks.
        begin = local * self.rows_per_step + rank * share
        dealt = self._stages[stage].dealt(np.arange(begin, begin + share + 1))
        owner = np.diff(dealt, axis=0).argmax(axis=1)
        indices = (self._rows_before[stage] + dealt[:-1])[range(share), owner]
        out = np.empty((share, self.row_length), dtype=np.int64)
        for number, source in enumerate(self.sources.values()):
            mine = np.flatnonzero(owner == number)
            if len(mine):
                with self._lock:
                    out[mine] = source.rows(indices[mine])
        return out

    def rows_of(self, step: int) -> dict[str, int]:
        """Return how many rows of each source all steps before one take."""
        if step == self.num_steps:
            rows = self._rows_before[-1]
        else:
            stage, local = self._locate(step)
            dealt = self._stages[stage].dealt([local * self.rows_per_step])
            rows = self._rows_before[stage] + dealt[0]
        return dict(zip(self.sources, rows.tolist(), strict=True))

    def statistics(self, step: int) -> dict[str, dict]:
        """Say what all steps before one have seen of each source.

        That is ``rows``, ``passes`` over its stories, units of each language,
        ``boundary``, ``tag``, ``padding``, ``sentences`` and ``switches``.
        """
        found = {}
        for name, rows in self.rows_of(step).items():
            packed = self.sources[name]
            with self._lock:
                counts, passes = packed.count(rows), packed.passes(rows)
            columns = packed.source.columns
            tokens = rows * self.row_length
            found[name] = {
                "rows": rows,
                "passes": round(passes, 6),
                **dict(zip(columns, counts.tolist(), strict=True)),
                "padding": int(tokens - counts[:-2].sum()),
            }
        return found

    def count(self, step: int) -> dict[str, int]:
        """Count all tokens of the steps before one, by their kind.

        Units by language, then ``boundary``, ``tag`` and ``padding``.
        """
        named = [packed.source.languages for packed in self.sources.values()]
        kinds = [*sorted({*itertools.chain(*named)}), *OTHERS]
        found = self.statistics(step).values()
        return {kind: sum(f.get(kind, 0) for f in found) for kind in kinds}

    def valid_rows(
        self, stores: dict[str, UnitStore], num_rows: int
    ) -> dict[str, np.ndarray]:
        """Cut fixed validation rows, a set for each source of the YAML.

        Sources that no stage uses are validated too, so that runs with other
        mixtures can be compared.

        Arguments
        ---------
        stores : Source -> stories that are not trained on.
        num_rows : Rows a set, at most, of one pass over the stories.

        Returns
        -------
        Source -> int64 ``[N, row_length]``.
        """
        check_number("valid_rows", num_rows, at_least=1, whole=True)
        check_tokenizers(stores, next(iter(self._stores.values())))
        rows = {}
        for name in self._settings:
            packed = self._open(stores, name)
            count = min(num_rows, packed.rows_before(1))
            if count < 1:
                raise ValueError(
                    f"{stores[name].folder} has fewer than {self.row_length} "
                    f"tokens for '{name}'; lower row_length or add stories"
                )
            rows[name] = packed.rows(np.arange(count))
        return rows

    def log_summary(self) -> None:
        """Log the budget of each language and what each source will give."""
        counts = self.count(self.num_steps)
        logger.info(
            "%d steps of %d tokens: %s",
            self.num_steps,
            self.row_length * self.rows_per_step,
            ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        )
        for name, found in self.statistics(self.num_steps).items():
            source = self.sources[name].source
            units = {name: found[name] for name in source.languages}
            total = max(1, sum(units.values()))
            logger.info(
                "source %s: %d rows, %.3f passes over %d stories (%d of them "
                "not in all of its languages); %s; %.2f switches a story",
                name,
                found["rows"],
                found["passes"],
                source.num_stories,
                source.num_partial,
                ", ".join(f"{n} {u / total:.1%}" for n, u in units.items()),
                found["switches"] / max(1, found["boundary"]),
            )
