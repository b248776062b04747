"""Which pairs stand in which step of preference optimisation."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from transformers import PreTrainedModel

from speechbrain_slm.brains.lm import IGNORED
from speechbrain_slm.dataio.plan import OTHERS
from speechbrain_slm.dataio.preference import PAIRS, PAIRS_KEY, PARTS
from speechbrain_slm.evaluation.cloze.items import tagged
from speechbrain_slm.evaluation.inputs import check_units, context_of
from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.tables import read_table

logger = logging.getLogger(__name__)
# Of a pair in a table, what its sequences hold beside units: a boundary each.
_BOUNDARIES = 1


@dataclass(frozen=True)
class Pairs:
    """N pairs as a model reads them, language tags included."""

    names: list[str]
    groups: list[str]
    languages: list[tuple[str, str]]  # of the prompt and of the endings
    # (prompt, ending) of each chosen side, then of each rejected one, int64.
    chosen: list[tuple[np.ndarray, np.ndarray]]
    rejected: list[tuple[np.ndarray, np.ndarray]]
    identity: str  # of all of it


def read_pairs(path: str | Path, model: PreTrainedModel, units: dict) -> Pairs:
    """Read a table of ``dataio.preference.PAIRS`` for a model.

    ValueError, which names the file and the pair, if its units are of another
    tokenizer than the model's ``units``, an ending has none, both are the same,
    or it is longer than the model's context. A prompt that begins with a
    language tag is taken to hold all tags that there are.
    """
    table = read_table(path, PAIRS, PAIRS_KEY, advice="")
    if not len(table):
        raise ValueError(f"{path}: no rows; expected a pair or more")
    expected = units["tokenizer_identity"]
    for other in set(pc.unique(table["tokenizer"]).to_pylist()) - {expected}:
        raise ValueError(
            f"{path}: its units are of tokenizer {other}, the model's of "
            f"{expected}. Make pairs of the model's units, or take another "
            "model."
        )
    columns = [_sequences(table[name]) for name in PARTS]
    names, groups, begin, end = (
        table[name].to_pylist()
        for name in ("pair_id", "group", "prompt_language", "ending_language")
    )
    languages = list(zip(begin, end, strict=True))
    chosen: list[tuple] = []
    rejected: list[tuple] = []
    digest = hashlib.sha256()
    for name, spoken, prompt, *endings in zip(
        names, languages, *columns, strict=True
    ):
        where = f"{path}, pair '{name}'"
        _check_endings(where, *endings)
        for place, ending in zip((chosen, rejected), endings, strict=True):
            tags, pair = units["language_tags"], (prompt, ending)
            # What a model was asked to continue has its tags already.
            if not np.isin(prompt[:1], [*tags.values()]).any():
                pair = tagged(prompt, ending, spoken, tags, where)
            check_units(
                *(where, np.concatenate(pair), units["vocabulary_size"]),
                *(context_of(model), _BOUNDARIES, [*tags.values()]),
            )
            place.append(pair)
            for part in pair:
                digest.update(len(part).to_bytes(8, "little") + part.tobytes())
    known = names, groups, languages
    for text in zip(*known, strict=True):
        digest.update(repr(text).encode())
    return Pairs(*known, chosen, rejected, digest.hexdigest())


def _check_endings(
    where: str, chosen: np.ndarray, rejected: np.ndarray
) -> None:
    for side, ending in (("chosen", chosen), ("rejected", rejected)):
        if not len(ending):
            raise ValueError(
                f"{where}: its {side} ending has no units; expected one or more"
            )
    if np.array_equal(chosen, rejected):
        raise ValueError(
            f"{where}: its chosen and its rejected ending are the same "
            f"{len(chosen)} units; expected two that differ"
        )


def _sequences(column: Any) -> list[np.ndarray]:
    """Return the lists of a column, int64."""
    column = column.combine_chunks()
    ends = column.offsets.to_numpy()
    values = column.values.to_numpy().astype(np.int64)
    return np.split(values[: ends[-1]], ends[:-1])[1:]


class PairPlan:
    """Rows of pairs for every optimizer step of a run.

    Every pair is trained on once before any is again, each time in another
    order: a pure function of (pairs, seed, step). A row is the number of a
    pair. See :class:`speechbrain_slm.dataio.plan.TokenPlan`, in whose place
    it stands.

    Arguments
    ---------
    units : What the model's units are (``models.export.UNITS_FIELDS``).
    steps : Of the optimizer.
    rows_per_step : Pairs of one step, over all ranks.
    valid_rows : Pairs that are held out, at least; whole groups.
    """

    def __init__(
        self,
        pairs: Pairs,
        units: dict,
        steps: int,
        rows_per_step: int,
        valid_rows: int,
        seed: int,
    ) -> None:
        check_number("steps", steps, at_least=1, whole=True)
        check_number("rows_per_step", rows_per_step, at_least=1, whole=True)
        check_number("valid_rows", valid_rows, at_least=0, whole=True)
        check_number("seed", seed, at_least=0, whole=True)
        self.pairs, self.units = pairs, units
        self.num_steps, self.first_steps = steps, (0, steps)
        self.rows_per_step, self.seed = rows_per_step, seed
        self.boundary: int = units["boundary"]
        self.vocabulary_size: int = units["vocabulary_size"]
        self.language_tags: dict[str, int] = units["language_tags"]
        self.num_symbols = self.boundary + 1 + len(self.language_tags)
        lengths = [
            len(prompt) + len(ending) + _BOUNDARIES
            for side in (pairs.chosen, pairs.rejected)
            for prompt, ending in side
        ]
        # One shape for all: what fits the memory in the first step does in
        # the last, and a compiler meets no other.
        self.width = max(lengths)
        self.row_length = 2 * self.width  # tokens, padding included
        self.valid, self.train = self._split(valid_rows)
        self._counts = self._count()
        self.identity: dict[str, Any] = {
            "pairs": pairs.identity,
            "tokenizer": units["tokenizer_identity"],
            "steps": steps,
            "rows_per_step": rows_per_step,
            "valid_rows": valid_rows,
            "seed": seed,
        }

    def _split(self, valid_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Hold out whole groups, drawn by the seed."""
        _, member = np.unique(self.pairs.groups, return_inverse=True)
        sizes = np.bincount(member)
        order = np.random.default_rng([self.seed, 0]).permutation(len(sizes))
        before = np.cumsum(sizes[order]) - sizes[order]
        held = np.isin(member, order[before < valid_rows])
        if held.all():
            raise ValueError(
                f"valid_rows is {valid_rows}, which leaves none of the "
                f"{len(member)} pairs of {len(sizes)} groups to train on; "
                "lower it, or make more pairs"
            )
        return np.flatnonzero(held), np.flatnonzero(~held)

    def rows(self, step: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
        """Return the pairs that one rank trains on in a step, int64."""
        if not 0 <= step < self.num_steps:
            raise IndexError(
                f"Step {step} is outside this run of {self.num_steps} steps"
            )
        share = self.rows_per_step // world_size
        begin = step * self.rows_per_step + rank * share
        places = np.arange(begin, begin + share)
        epochs, places = np.divmod(places, len(self.train))
        found = np.empty(share, np.int64)
        for epoch in np.unique(epochs).tolist():
            mine = epochs == epoch
            found[mine] = self._order(epoch)[places[mine]]
        return found

    def tokens(self, rows: Sequence[int] | np.ndarray) -> tuple:
        """Lay out pairs: all chosen sides, then all rejected ones.

        The target of a position is the next symbol where that is a unit of an
        ending, else -100. A row below 0 is padding alone.

        Returns
        -------
        Symbols and targets, int64 ``[2 B, width]``.
        """
        shape = 2 * len(rows), self.width
        symbols, targets = (
            np.full(shape, self.boundary),
            np.full(shape, IGNORED),
        )
        for side, pairs in enumerate((self.pairs.chosen, self.pairs.rejected)):
            for place, row in enumerate(rows, side * len(rows)):
                if row < 0:
                    continue
                prompt, ending = pairs[row]
                end = 1 + len(prompt) + len(ending)
                symbols[place, 1:end] = np.concatenate([prompt, ending])
                # The boundary is read first, so that the prompt's last unit,
                # at its length, is what predicts the ending's first one.
                is_unit = ending < self.vocabulary_size
                told = np.where(is_unit, ending, IGNORED)
                targets[place, len(prompt) : end - 1] = told
        return symbols.astype(np.int64), targets.astype(np.int64)

    def count(self, step: int) -> dict[str, int]:
        """Count all tokens of the steps before one, prompts twice a pair."""
        times, rest = divmod(step * self.rows_per_step, len(self.train))
        seen = np.zeros(len(self.pairs.names), np.int64)
        seen[self.train] = times
        seen[self._order(times)[:rest]] += 1
        return {
            kind: int((seen * counts).sum())
            for kind, counts in self._counts.items()
        }

    def statistics(self, step: int) -> dict[str, dict]:
        """Say how often all steps before one have seen the pairs."""
        rows, pairs = step * self.rows_per_step, len(self.train)
        told = {"rows": rows, "pairs": pairs, "passes": rows / pairs}
        return {"pairs": {**told, "held out": len(self.valid)}}

    def _order(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, 1, epoch])
        return generator.permutation(self.train)

    def _count(self) -> dict[str, np.ndarray]:
        """Return how many tokens of each kind each pair has."""
        pairs = self.pairs
        kinds = [*sorted({one for both in pairs.languages for one in both})]
        zeros = np.zeros((len(kinds) + len(OTHERS), len(pairs.names)), np.int64)
        counts = dict(zip((*kinds, *OTHERS), zeros, strict=True))
        for side in (pairs.chosen, pairs.rejected):
            for place, parts in enumerate(side):
                counts["boundary"][place] += _BOUNDARIES
                for kind, part in zip(
                    pairs.languages[place], parts, strict=True
                ):
                    tags = int((part > self.boundary).sum())
                    counts["tag"][place] += tags
                    counts[kind][place] += len(part) - tags
        counts["padding"] += self.row_length - sum(counts.values())
        return counts

    def log_summary(self) -> None:
        """Log how many pairs are trained on, and how often."""
        counts = self.count(self.num_steps)
        logger.info(
            "%d steps of %d pairs: %.2f passes over %d pairs, %d held out; %s",
            self.num_steps,
            self.rows_per_step,
            self.num_steps * self.rows_per_step / len(self.train),
            len(self.train),
            len(self.valid),
            ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        )
