"""The learning rate as a function of the step."""

from collections.abc import Sequence

import numpy as np
from speechbrain.nnet.schedulers import LinearWarmupScheduler

from speechbrain_slm.utils.numbers import check_choice, check_number

SCHEDULES = ("run", "stage")


class LearningRate:
    """Linear warm-up, then linear decay, over the run or in every stage.

    Arguments
    ---------
    peak : The rate at the end of the warm-up.
    warmup : Share of the run, or of each stage, that warms up.
    first_steps : First step of every stage and, last, the number of steps.
    schedule : ``"run"``: once. ``"stage"``: anew in each stage.

    Raises
    ------
    ValueError
        If a value is out of range.

    Example
    -------
    >>> rate = LearningRate(1.0, 0.5, [0, 4, 8], "run")
    >>> [rate.at(step) for step in range(8)]
    [0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2]
    >>> rate = LearningRate(1.0, 0.5, [0, 4, 8], "stage")
    >>> [round(rate.at(step), 2) for step in range(8)]
    [0.5, 1.0, 0.67, 0.33, 0.5, 1.0, 0.67, 0.33]
    """

    def __init__(
        self,
        peak: float,
        warmup: float,
        first_steps: Sequence[int] | np.ndarray,
        schedule: str,
    ) -> None:
        check_number("learning_rate", peak, above=0)
        check_number("warmup", warmup, at_least=0, below=1)
        check_choice("schedule", schedule, SCHEDULES)
        bounds = np.asarray(first_steps)
        self._bounds = bounds if schedule == "stage" else bounds[[0, -1]]
        self._parts = [
            # The last step still trains: zero comes one step later.
            LinearWarmupScheduler(peak, round(warmup * length), length + 1)
            for length in np.diff(self._bounds).tolist()
        ]

    def at(self, step: int) -> float:
        """Return the rate with which a step, from 0, updates the weights."""
        part = int(np.searchsorted(self._bounds, step, side="right")) - 1
        local = step - int(self._bounds[part])
        # Counted from 1: a first step at rate 0 would train on its tokens for
        # nothing.
        return self._parts[part].calculate_lr(local + 1)
