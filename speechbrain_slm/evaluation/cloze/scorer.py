"""What every scorer of (prompt, ending) pairs does, whatever gives the logs.

Every benchmark scores through this module, so that they agree on what is
counted. A sequence is

    (boundary, if it starts so) | prompt | ending | (boundary, if ``score_end``)

Its first symbol is read and never scored, and neither are language tags,
which stand in the prompt and the ending of a model that was trained with
them. What is made of the others' log-likelihoods stands in ``conventions``;
there is no penalty and no calibration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from speechbrain_slm.evaluation.cloze.conventions import (
    LIKELIHOODS,
    OF_ENDINGS_ALONE,
)
from speechbrain_slm.evaluation.inputs import check_units
from speechbrain_slm.utils.numbers import check_choice

STARTS = ("boundary", "first_unit")


class Scorer(ABC):
    """Score (prompt, ending) pairs under every likelihood.

    ``likelihoods`` are the names of those that it gives; ``context`` is how
    many symbols can be read at most, None where no limit is known.

    Arguments
    ---------
    boundary : The symbol before and after a story.
    start
        ``boundary``: it is read first, and every unit is scored.
        ``first_unit``: the first unit is read first, and not scored.
    score_end : Whether the closing boundary is a part of the ending.
    language_tags : Language -> its symbol, where training had tags.
    endings_alone
        Score each distinct ending once more, as a sequence of its own behind
        the boundary (and its language's tag), for the likelihoods that need
        it. Takes ``boundary`` as start, and pairs that have a prompt.
    """

    context: int | None = None

    def __init__(
        self,
        vocabulary_size: int,
        boundary: int,
        start: str = "boundary",
        score_end: bool = False,
        language_tags: dict[str, int] | None = None,
        endings_alone: bool = False,
    ) -> None:
        check_choice("start", start, STARTS)
        if endings_alone and start != "boundary":
            raise ValueError(
                f"start is '{start}', under which an ending alone has a first "
                "unit that is not scored; set it to 'boundary', or "
                "endings_alone to False"
            )
        self.vocabulary_size = vocabulary_size
        self.start = [boundary] if start == "boundary" else []
        self.end = [boundary] if score_end else []
        self.language_tags = dict(language_tags or {})
        self.endings_alone = endings_alone
        left_out = () if endings_alone else OF_ENDINGS_ALONE
        self.likelihoods = [n for n in LIKELIHOODS if n not in left_out]
        self._tags = np.array(sorted(self.language_tags.values()), np.int64)

    def count_units(self, symbols: Sequence[int] | np.ndarray) -> int:
        """Count the symbols that are not language tags."""
        return len(symbols) - int(np.isin(symbols, self._tags).sum())

    def count_symbols(self, length: int) -> int:
        """Add the boundaries to the units and tags of a prompt and ending."""
        return length + len(self.start) + len(self.end)

    def score(
        self, pairs: Sequence[tuple], names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return for each name of ``likelihoods`` those of all pairs, [N].

        ``pairs`` are (prompt, ending), sequences of units, with language tags
        where training has them; a prompt may be empty, an ending not.
        ``names`` are for errors.
        """
        if names is None:
            names = [f"pair {index}" for index in range(len(pairs))]
        ids = [
            self._sequence(prompt, ending, name)
            for (prompt, ending), name in zip(pairs, names, strict=True)
        ]
        lengths = [len(self.start) + len(prompt) for prompt, _ in pairs]
        scored = [self._scored(symbols) for symbols in ids]
        for mask, length, name in zip(scored, lengths, names, strict=True):
            if not mask[length:].any():
                raise ValueError(
                    f"{name}: the ending's only unit is the first of all, "
                    "which is not scored; set start to boundary"
                )
        logs = self._logs(ids, lengths, scored)
        alone = self._logs_alone(pairs, names)
        scores = {}
        for name in self.likelihoods:
            take = LIKELIHOODS[name]
            parts = zip(logs, alone, strict=True)
            values = [take(head, tail, own) for (head, tail), own in parts]
            scores[name] = np.array(values)
            if not np.isfinite(values).all():
                row = int(np.isfinite(values).argmin())
                raise ValueError(
                    f"{names[row]}: its log-likelihood ({name}) is "
                    f"{values[row]}, expected a finite number; the model's "
                    "weights or activations are broken"
                )
        return scores

    @abstractmethod
    def _logs(
        self,
        ids: list[np.ndarray],
        lengths: list[int],
        scored: list[np.ndarray],
    ) -> list[list[np.ndarray]]:
        """Return the log-likelihoods of each prompt and of its ending.

        Of the symbols that are ``scored``, float64. ``ids`` are whole
        sequences, ``lengths`` says where their endings begin.
        """

    def _logs_alone(self, pairs, names):
        """Return the log-likelihoods of each ending without its prompt."""
        if not self.endings_alone:
            return [np.zeros(0)] * len(pairs)
        found: dict[bytes, np.ndarray] = {}
        keys = []
        for (prompt, ending), name in zip(pairs, names, strict=True):
            if not self.count_units(prompt):
                raise ValueError(
                    f"{name}: it has no prompt, so its ending is the same "
                    "alone; set endings_alone to False"
                )
            # The tag that holds where the ending begins: its own, or that of
            # a prompt in the same language.
            tags = np.asarray(prompt)[np.isin(prompt, self._tags)][-1:]
            if np.isin(ending[:1], self._tags).any():
                tags = tags[:0]
            units = np.concatenate([self.start, tags, ending, self.end])
            units = units.astype(np.int64)
            keys.append(units.tobytes())
            found.setdefault(keys[-1], units)
        # Batches of their own: those of the pairs, and so the last bits of
        # their scores, are what they are without them.
        ids = list(found.values())
        scored = [self._scored(symbols) for symbols in ids]
        logs = self._logs(ids, [len(self.start)] * len(ids), scored)
        endings = {key: one for key, (_, one) in zip(found, logs, strict=True)}
        return [endings[key] for key in keys]

    def _sequence(self, prompt, ending, name):
        if self.count_units(ending) == 0:
            raise ValueError(f"{name}: the ending has no units")
        units = np.concatenate([prompt, ending]).astype(np.int64)
        what = name, units, self.vocabulary_size, self.context
        check_units(*what, self.count_symbols(0), self._tags)
        return np.concatenate([self.start, units, self.end]).astype(np.int64)

    def _scored(self, ids: np.ndarray) -> np.ndarray:
        """Mark what is scored: all but tags and the first other symbol."""
        mask = ~np.isin(ids, self._tags)
        # Of [b, en, 7, fr, 9] with tags en and fr: 7 and 9. (argmax finds the
        # first True.)
        mask[: mask.argmax() + 1] = False
        return mask
