"""Which utterances stand in which training step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from speechbrain_slm.utils.numbers import check_number


class UtterancePlan:
    """Numbers of utterances for every optimizer step, each once an epoch.

    What :class:`speechbrain_slm.brains.base.StepBrain` asks of a plan: a pure
    function of (seed, step), with rows of an utterance's number and the epoch.

    Arguments
    ---------
    numbers : Of the utterances to train on.
    identity : Of what they are.
    frames : Units of an utterance, in the mean; for the speed in the log.

    Example
    -------
    >>> plan = UtterancePlan([3, 5, 8], "1a", 4, rows_per_step=2, seed=0)
    >>> seen = np.concatenate([plan.rows(step) for step in range(3)])
    >>> sorted(seen[:, 0].tolist())
    [3, 3, 5, 5, 8, 8]
    """

    def __init__(
        self,
        numbers: Sequence[int] | np.ndarray,
        identity: str,
        steps: int,
        rows_per_step: int,
        seed: int,
        frames: float = 1.0,
    ) -> None:
        check_number("steps", steps, at_least=1, whole=True)
        check_number("rows_per_step", rows_per_step, at_least=1, whole=True)
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.num_steps, self.first_steps = steps, (0, steps)
        self.rows_per_step, self.seed = rows_per_step, seed
        # Tokens of the log are units then.
        self.row_length = max(1, round(frames))
        self.identity: dict[str, Any] = {
            "utterances": identity,
            "steps": steps,
            "rows_per_step": rows_per_step,
            "seed": seed,
        }

    def rows(self, step: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
        """Return one rank's utterances and their epochs, int64 ``[N, 2]``."""
        share = self.rows_per_step // world_size
        begin = step * self.rows_per_step + rank * share
        places = np.arange(begin, begin + share)
        epochs, within = np.divmod(places, len(self.numbers))
        rows = np.stack([places, epochs], axis=1)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            order = np.random.default_rng([self.seed, epoch])
            numbers = order.permutation(self.numbers)
            rows[here, 0] = numbers[within[here]]
        return rows

    def count(self, step: int) -> dict[str, int]:
        """Count the utterances of the steps before one."""
        return {"utterances": step * self.rows_per_step}
