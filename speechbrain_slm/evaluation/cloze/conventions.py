"""What is compared: a sum or a mean, over all of a sequence or its ending."""

from dataclasses import dataclass

import numpy as np

CONVENTIONS = ("whole_mean", "whole_sum", "ending_mean", "ending_sum")


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods (nats, base e) of N sequences, in the caller's order.

    Arguments
    ---------
    whole_sum : np.ndarray
        Of the prompt and the ending, float64 [N].
    whole_units : np.ndarray
        How many units that sum is over, int64 [N].
    ending_sum : np.ndarray
        Of the ending given the prompt, float64 [N].
    ending_units : np.ndarray
        How many units that sum is over, int64 [N].
    """

    whole_sum: np.ndarray
    whole_units: np.ndarray
    ending_sum: np.ndarray
    ending_units: np.ndarray

    def score(self, convention: str) -> np.ndarray:
        """Return one number a sequence; the higher, the likelier.

        Arguments
        ---------
        convention
            ``whole_mean``, ``whole_sum``: mean or sum over the whole sequence,
            prompt included. ``ending_mean``, ``ending_sum``: over the ending.

        Returns
        -------
        Float64 [N].
        """
        check_convention(convention)
        part, statistic = convention.split("_")
        total = getattr(self, f"{part}_sum")
        if statistic == "sum":
            return total
        return total / getattr(self, f"{part}_units")


def check_convention(name: str) -> None:
    """Refuse a scoring convention that does not exist.

    Arguments
    ---------
    name : One of ``CONVENTIONS``.

    Raises
    ------
    ValueError
        If it is not.
    """
    if name not in CONVENTIONS:
        raise ValueError(
            f"scoring convention '{name}' is unknown; expected one of "
            f"{', '.join(CONVENTIONS)}"
        )
