"""A stage of a run, and how its rows are dealt out to its sources."""

from collections.abc import Sequence

import numpy as np

from speechbrain_slm.dataio.settings import check_stages
from speechbrain_slm.utils.numbers import check_number

# Twice the square of it is the largest number that dealing meets, in 64 bits.
MOST_ROWS = 1 << 30


class Stage:
    """The rows of a stage.

    Arguments
    ---------
    stage
        ``{tokens: N, mixture: {source: weight}}``, or ``steps`` in place of
        ``tokens``.
    names : The sources of the run, in the order of the columns.
    rows_per_step : Rows in the global batch of one optimizer step.

    Attributes
    ----------
    steps, rows : Of the whole stage; tokens are rounded to whole steps.
    shares : Rows of each source, shape ``[sources]``.

    Raises
    ------
    ValueError
        If it cannot be laid out, or is too long for the arithmetic.

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
        mixture = stage["mixture"]
        used = check_stages([stage], [*names, *mixture])
        if absent := set(used) - set(names):
            raise ValueError(f"No source is called {', '.join(sorted(absent))}")
        check_number("row_length", row_length, at_least=1, whole=True)
        check_number("rows_per_step", rows_per_step, at_least=1, whole=True)
        step_tokens = row_length * rows_per_step
        self.steps = stage.get("steps") or max(
            1, round(stage["tokens"] / step_tokens)
        )
        self.rows = self.steps * rows_per_step
        if self.rows > MOST_ROWS:
            raise ValueError(
                f"A stage of {self.rows:,} rows is too long: at most "
                f"{MOST_ROWS:,} can be dealt out. Split it into several."
            )
        weights = np.array([mixture.get(n, 0) for n in names], float)
        exact = weights / weights.sum() * self.rows
        self.shares = np.floor(exact).astype(np.int64)
        # Largest remainders; a tie goes to the source that stands first.
        order = np.argsort(-(exact - self.shares), kind="stable")
        self.shares[order[: self.rows - self.shares.sum()]] += 1

    def dealt(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return how many of the first rows each source has, [N, sources].

        The first source's k-th of n rows stands in the middle of the k-th
        n-th of the stage; the others share what it leaves in the same way.
        Nothing is kept: a stage may have millions of rows.
        """
        # In integers, so that the sources' rows add up to all exactly.
        before = np.asarray(rows, dtype=np.int64)
        left = self.rows
        found = []
        for share in self.shares.tolist():
            mine = (2 * before * share + left) // max(1, 2 * left)
            found.append(mine)
            before, left = before - mine, left - share
        return np.stack(found, axis=1)
