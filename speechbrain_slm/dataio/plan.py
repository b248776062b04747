"""The token plan: which tokens stand in which training step.

A run is a list of stages, each a token budget and a mixture of sources. Row
``i`` of a source is cut from its stream at ``i * row_length``; the rows of a
step are shared out among the sources as evenly as the mixture allows. All of
it is a pure function of (store, configuration, seed, step): a restart, or
another number of ranks, trains on the same tokens at the same step.

Example: row_length 4, rows_per_step 2, one stage of 16 tokens with
``{en: 0.5, fr: 0.5}`` gives two steps; each trains on one row of ``en`` and
one row of ``fr``, rows 0 and 0 in the first step, 1 and 1 in the second.
"""

import logging

import numpy as np

from speechbrain_slm.dataio.source import Source

logger = logging.getLogger(__name__)
STAGE_KEYS = {"tokens", "mixture"}
SOURCE_KEYS = {"languages", "switch_probability", "span"}


class TokenPlan:
    """Rows of tokens for every optimizer step of a run.

    Arguments
    ---------
    store : speechbrain_slm.dataio.reader.UnitStore
        The training stories.
    sources : dict
        Name -> ``{languages: [...], switch_probability: p, span: n}``, the
        last two optional.
    stages : list of dict
        ``{tokens: N, mixture: {source: weight}}`` in the order of training.
        Weights are shares of the stage's tokens; they need not sum to 1. A
        budget is rounded to whole steps.
    row_length : int
        Tokens in a row.
    rows_per_step : int
        Rows in the global batch of one optimizer step, over all ranks.
    seed : int
        Seed of the order and of the language paths.

    Attributes
    ----------
    num_steps : int
        Optimizer steps of the whole run.
    boundary : int
        Id of the symbol before each story, the first after the store's
        vocabulary.

    Raises
    ------
    ValueError
        If a stage has no tokens, names an unknown source, or a source asks
        for a language that the store lacks.
    """

    def __init__(self, store, sources, stages, row_length, rows_per_step, seed):
        if row_length < 2 or rows_per_step < 1:
            raise ValueError(
                f"row_length is {row_length}, rows_per_step {rows_per_step}; "
                "expected at least 2 tokens and 1 row"
            )
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed is {seed!r}; expected an integer >= 0")
        if not stages:
            raise ValueError("'stages' is empty; expected at least one stage")
        _check_sources(sources)
        self.row_length = row_length
        self.rows_per_step = rows_per_step
        self.boundary = store.vocabulary_size
        self.store = store
        self.seed = seed
        self._settings = sources
        used = {name for stage in stages for name in _check(stage, sources)}
        self.sources = {
            name: Source(store, self.boundary, seed=seed, **sources[name])
            for name in sorted(used)
        }
        self._names = list(self.sources)
        self._stages = [self._lay_out(stage) for stage in stages]
        self._first_steps = np.cumsum([0] + [len(s) for s in self._stages])
        self.num_steps = int(self._first_steps[-1])
        # Rows of each source before each step of the run, [steps + 1, sources].
        rows = np.concatenate(self._stages)
        used_rows = [(rows == n).sum(axis=1) for n in range(len(used))]
        self._rows_before = np.zeros((self.num_steps + 1, len(used)), int)
        self._rows_before[1:] = np.cumsum(np.stack(used_rows, axis=1), axis=0)
        self.identity = {
            "store": store.info["identity"],
            "tokenizer": store.identity,
            "sources": {name: dict(sources[name]) for name in sorted(used)},
            "stages": [
                {"tokens": s["tokens"], "mixture": dict(s["mixture"])}
                for s in stages
            ],
            "row_length": row_length,
            "rows_per_step": rows_per_step,
            "seed": seed,
        }

    def _lay_out(self, stage):
        """Return the source number of each row of a stage, [steps, rows]."""
        step_tokens = self.row_length * self.rows_per_step
        steps = max(1, round(stage["tokens"] / step_tokens))
        rows = steps * self.rows_per_step
        names = [n for n in self._names if stage["mixture"].get(n, 0) > 0]
        weights = np.array([stage["mixture"][n] for n in names], dtype=float)
        exact = weights / weights.sum() * rows
        shares = np.floor(exact).astype(np.int64)
        # Largest remainders; a tie goes to the source that stands first.
        order = np.argsort(-(exact - shares), kind="stable")
        shares[order[: rows - shares.sum()]] += 1
        # Row k of n in a source belongs at (k + 1/2) / n of the stage: sorting
        # these places spreads every source evenly over all steps.
        places = np.concatenate([(np.arange(n) + 0.5) / n for n in shares if n])
        numbers = np.repeat([self._names.index(n) for n in names], shares)
        layout = numbers[np.argsort(places, kind="stable")].astype(np.int8)
        return layout.reshape(steps, self.rows_per_step)

    def _locate(self, step):
        if not 0 <= step < self.num_steps:
            raise IndexError(
                f"Step {step} is outside this run of {self.num_steps} steps"
            )
        stage = np.searchsorted(self._first_steps, step, side="right") - 1
        return int(stage), step - int(self._first_steps[stage])

    def rows(self, step, rank=0, world_size=1):
        """Build the rows that one rank trains on in one optimizer step.

        Arguments
        ---------
        step : int
            Optimizer step, from 0.
        rank : int
            Which rank.
        world_size : int
            How many ranks share the global batch.

        Returns
        -------
        numpy.ndarray
            int64, shape ``[rows_per_step / world_size, row_length]``.

        Raises
        ------
        ValueError
            If the ranks cannot divide the global batch.
        """
        if self.rows_per_step % world_size:
            raise ValueError(
                f"rows_per_step is {self.rows_per_step}, which {world_size} "
                "ranks cannot divide; change one of them"
            )
        stage, local = self._locate(step)
        layout = self._stages[stage]
        share = self.rows_per_step // world_size
        mine = slice(rank * share, (rank + 1) * share)
        out = np.empty((share, self.row_length), dtype=np.int64)
        for number, source in enumerate(self.sources.values()):
            chosen = np.flatnonzero(layout[local, mine] == number)
            if not len(chosen):
                continue
            before = self._rows_before[step, number]
            same = layout[local] == number
            index = before + np.cumsum(same)[mine][chosen] - 1
            out[chosen] = source.tokens(
                index * self.row_length, self.row_length
            )
        return out

    def count(self, step):
        """Count the tokens of all steps before one, a language.

        Arguments
        ---------
        step : int
            Optimizer step; ``num_steps`` for the whole run.

        Returns
        -------
        dict
            Language -> units, and ``"boundary"`` -> story boundaries.
        """
        counts = dict.fromkeys([*self.store.languages, "boundary"], 0)
        for row, source in zip(
            self._rows_before[step], self.sources.values(), strict=True
        ):
            found = source.count(int(row) * self.row_length)
            for name, value in found.items():
                counts[name] += value
        return counts

    def valid_rows(self, store, num_rows):
        """Cut fixed validation rows, a set for each source of the YAML.

        Sources that no stage uses are validated too, so that runs with other
        mixtures can be compared.

        Arguments
        ---------
        store : speechbrain_slm.dataio.reader.UnitStore
            Stories that are not trained on.
        num_rows : int
            Rows a set, at most; no more than one pass over the stories gives.

        Returns
        -------
        dict
            Source -> int64 ``[N, row_length]``.

        Raises
        ------
        ValueError
            If the store's units are of another tokenizer, or too few.
        """
        if store.identity != self.store.identity:
            raise ValueError(
                f"{store.folder} holds units of tokenizer "
                f"{store.identity[:12]}, {self.store.folder} of "
                f"{self.store.identity[:12]}; expected one tokenizer. Extract "
                "the units of both with the same one."
            )
        rows = {}
        for name, settings in self._settings.items():
            source = Source(store, self.boundary, seed=self.seed, **settings)
            count = min(num_rows, source.epoch_start(1) // self.row_length)
            if count < 1:
                raise ValueError(
                    f"{store.folder} has fewer than {self.row_length} tokens "
                    f"for '{name}'; lower row_length or add stories"
                )
            begins = np.arange(count) * self.row_length
            rows[name] = source.tokens(begins, self.row_length)
        return rows

    def log_summary(self):
        """Log the budget of each language and the passes over each source."""
        counts = self.count(self.num_steps)
        logger.info(
            "%d steps of %d tokens: %s",
            self.num_steps,
            self.row_length * self.rows_per_step,
            ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        )
        for row, (name, source) in zip(
            self._rows_before[-1], self.sources.items(), strict=True
        ):
            tokens = int(row) * self.row_length
            logger.info(
                "source %s: %d rows, %.2f passes over %d stories",
                name,
                row,
                tokens / source.epoch_start(1),
                len(source.stories),
            )


def _check_sources(sources):
    for name, settings in sources.items():
        unknown = set(settings) - SOURCE_KEYS
        if unknown or "languages" not in settings:
            raise ValueError(
                f"Source '{name}' has the keys {sorted(settings)}; expected "
                f"languages, and of {sorted(SOURCE_KEYS)} what is needed"
            )


def _check(stage, sources):
    """Refuse a stage that cannot be laid out; return the sources it uses."""
    if set(stage) != STAGE_KEYS:
        raise ValueError(
            f"A stage has the keys {sorted(stage)}; expected "
            f"{sorted(STAGE_KEYS)}"
        )
    tokens = stage["tokens"]
    if not isinstance(tokens, int | float) or not tokens > 0:
        raise ValueError(
            f"A stage has {tokens!r} tokens; expected a number > 0"
        )
    unknown = [name for name in stage["mixture"] if name not in sources]
    if unknown:
        raise ValueError(
            f"A stage's mixture names {', '.join(unknown)}; 'sources' defines "
            f"{', '.join(sources)}"
        )
    negative = [n for n, weight in stage["mixture"].items() if weight < 0]
    used = [name for name, weight in stage["mixture"].items() if weight > 0]
    if negative or not used:
        raise ValueError(
            f"A stage's mixture is {stage['mixture']}; expected weights >= 0, "
            "one of them > 0"
        )
    return used
