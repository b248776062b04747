"""How much may be left out: one rule for all that leaves something out.

More than a share that the user sets stops the run; much, though less than
that, is a warning that says how much. Neither grows with what is left out: the
ledger lists each, a message the commonest reasons, with an example of each.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

logger = logging.getLogger(__name__)
# A loss that a person should look at, whatever share is allowed.
MUCH = 0.05
_SHOWN = 3  # reasons
_LONGEST = 150  # characters of a reason and of an example


class TooManyLeftOut(RuntimeError):
    """More is left out than the run may leave out."""


class Reasons:
    """Counts of what is left out, by the kind of reason.

    The kind is what stands before the first colon.

    Example
    -------
    >>> reasons = Reasons()
    >>> reasons.add("no audio: a.wav does not exist")
    >>> reasons.add("no audio: b.wav does not exist")
    >>> reasons.add("silent")
    >>> str(reasons)
    '2 x no audio (the first: a.wav does not exist); 1 x silent'
    """

    def __init__(self) -> None:
        self._counts, self._examples = Counter(), {}

    def add(self, reason: str, count: int = 1) -> None:
        """Count a reason.

        Arguments
        ---------
        reason : A kind, and after a colon what it is about.
        count : How often it was met.
        """
        kind, _, example = reason.partition(": ")
        kind = kind[:_LONGEST]
        self._counts[kind] += count
        self._examples.setdefault(kind, example[:_LONGEST])

    def __str__(self):
        shown = [
            f"{count} x {kind}"
            + (f" (the first: {example})" if example else "")
            for kind, count in self._counts.most_common(_SHOWN)
            for example in [self._examples[kind]]
        ]
        if len(self._counts) > _SHOWN:
            shown.append(f"{len(self._counts) - _SHOWN} other reasons")
        return "; ".join(shown)


def check_share(
    what: str,
    left_out: int,
    total: int,
    most: float,
    reasons: Reasons | str,
    ledger: str | Path,
    advice: str,
) -> None:
    """Stop where too much is left out, warn where much is.

    Arguments
    ---------
    what : What is counted, e.g. ``rows of train``.
    most : The share of them that may go: the value of ``max_left_out``.
    advice : What to do, a sentence.

    Raises
    ------
    TooManyLeftOut
        Says the share, the value, the reasons and the ledger.
    """
    if not left_out:
        return
    share = left_out / total
    shown = (
        f"{left_out} of {total} {what} are left out ({share:.2%}): {reasons}. "
        f"{ledger} names each with its reason"
    )
    if share > most:
        raise TooManyLeftOut(
            f"{shown}; max_left_out allows {most:.2%}. {advice} Or raise "
            "max_left_out."
        )
    if share > MUCH:
        logger.warning("Warning: %s.", shown)
    else:
        logger.info("%s.", shown)
