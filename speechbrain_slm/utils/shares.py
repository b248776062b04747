"""How much may be left out: one rule for all that leaves something out.

More than a share that the user sets stops the run; much, though less than
that, is a warning that says how much. Neither grows with what is left out: the
ledger lists each, a message the commonest reasons, with an example of each.
"""

import logging
from collections import Counter

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

    def __init__(self):
        self._counts, self._examples = Counter(), {}

    def add(self, reason, count=1):
        """Count a reason.

        Arguments
        ---------
        reason : str
            A kind, and after a colon what it is about.
        count : int
            How often it was met.
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


def check_share(what, left_out, total, most, reasons, ledger, advice):
    """Stop where too much is left out, warn where much is.

    Arguments
    ---------
    what : str
        What is counted, e.g. ``rows of train``.
    left_out : int
        How many of them.
    total : int
        How many there were.
    most : float
        The share of them that may go: the value of ``max_left_out``.
    reasons : Reasons or str
        Why they went.
    ledger : str or Path
        What lists each.
    advice : str
        What to do, a sentence.

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
