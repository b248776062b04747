"""What is left out: one file, one schema, one rule, and how much may go.

More than a share that the user sets stops the run; much, though less than
that, is a warning. Neither message grows with what is left out.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from speechbrain_slm.utils.atomic import atomic_path

logger = logging.getLogger(__name__)
LEDGER = "left_out.jsonl"
# In the order of a line; what means nothing is absent.
FIELDS = (
    "split",
    "story_id",
    "sentence",  # its number in the stage's input
    "language",
    "speaker",
    "item",
    "place",  # in a source: a file and a row
    "audio",
    "text",
    "action",  # dropped, kept or passed over
    "reason",  # the same words for all of a kind
    "detail",
)
# The one rule for what remains of a story, wherever it loses sentences: a
# sentence goes in every language, so that sentence i says the same in all; the
# later ones move up; a story goes as a whole where no sentence is left.
ELSEWHERE = "dropped in another language"
NOTHING_LEFT = "no sentence of the story is left"
# A loss that a person should look at, whatever share is allowed.
MUCH = 0.05
_SHOWN = 3  # reasons
_LONGEST = 150  # characters of a reason and of an example


class TooManyLeftOut(RuntimeError):
    """More is left out than the run may leave out."""


class Reasons:
    """Counts of what is left out, by what stands before a reason's first colon.

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
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}  # the first of a kind, in words

    def add(self, reason: str) -> None:
        """Count a reason: a kind, and after a colon what it is about."""
        kind, _, example = reason.partition(": ")
        kind, example = kind[:_LONGEST], example[:_LONGEST]
        self._counts[kind] += 1
        shown = f" (the first: {example})" if example else ""
        self._examples.setdefault(kind, shown)

    def __str__(self) -> str:
        shown = [
            f"{count} x {kind}{self._examples[kind]}"
            for kind, count in self._counts.most_common(_SHOWN)
        ]
        if len(self._counts) > _SHOWN:
            shown.append(f"{len(self._counts) - _SHOWN} other reasons")
        return "; ".join(shown)


class Ledger:
    """Writes a ledger, and counts: reasons by split, and lines by kind."""

    def __init__(self, file: IO[str]) -> None:
        self.reasons: defaultdict[str, Reasons] = defaultdict(Reasons)
        self.counts: Counter[str] = Counter()
        self._file = file

    def write(self, **entry: str | int | None) -> None:
        """Write a line of ``FIELDS``; what is None or empty is absent."""
        if unknown := entry.keys() - set(FIELDS):
            raise KeyError(f"a ledger has no field {', '.join(unknown)}")
        told = {name: v for name, v in entry.items() if v not in (None, "")}
        line = {name: told[name] for name in FIELDS if name in told}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        action, reason = entry["action"], entry["reason"]
        self.counts[f"{action}: {reason}"] += 1
        if action == "dropped":
            split = str(entry.get("split", ""))
            # Without a detail the colon is followed by nothing, and no matter.
            self.reasons[split].add(f"{reason}: {told.get('detail', '')}")

    def __str__(self) -> str:
        """Say what was dropped of each split, and why."""
        return "; ".join(
            f"{split}: {reasons}" if split else str(reasons)
            for split, reasons in self.reasons.items()
        )


@contextlib.contextmanager
def open_ledger(path: str | Path) -> Iterator[Ledger]:
    """Write a ledger, all of it or nothing."""
    # left_out.jsonl, or <table>.left_out.jsonl of a table of its own.
    with (
        atomic_path(path) as new,
        # JSON lines may hold half of a surrogate pair; so escaped, too.
        open(new, "w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield Ledger(file)


def write_ledger(path: str | Path, entries: Iterable[dict]) -> Reasons:
    """Write a ledger of one split, and return its reasons."""
    with open_ledger(path) as ledger:
        for entry in entries:
            ledger.write(**entry)
    return ledger.reasons[""]


def check_share(
    what: str,
    left_out: int,
    total: int,
    most: float,
    reasons: Reasons | str,
    ledger: str | Path,
    advice: str,
    forget: Callable[[], object] = lambda: None,
    key: str = "max_left_out",
) -> None:
    """Stop (TooManyLeftOut) where too much is left out, warn where much is.

    Arguments
    ---------
    most : The share of what is counted that may go, from 0 to 1.
    forget
        Called before the error: removes what says of the input that it is bad,
        so that a rerun looks at it again. It may be mended.
    key : What the share is called in YAML.
    """
    if not left_out:
        return
    share = left_out / total
    shown = (
        f"{left_out} of {total} {what} are left out ({share:.2%}): {reasons}. "
        f"{ledger} names each with its reason"
    )
    if share > most:
        forget()
        raise TooManyLeftOut(
            f"{shown}; {key} allows {most:.2%}. {advice} Or raise {key}."
        )
    level, begin = logging.INFO, ""
    if share > MUCH:
        level, begin = logging.WARNING, "Warning: "
    logger.log(level, f"{begin}{shown}.")
