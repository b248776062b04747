"""Batches one after the other, on a device that does not wait for the host.

While the device computes a batch, the next one is given to it; units are
fetched when they are there. In a batch, sums are rounded in another order than
alone: where that could decide a unit, the utterance is computed again in
float64, where it cannot, together with those of other batches. So the units
are those of exact arithmetic, whatever an utterance is batched with.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# States of a frame: rounding may decide its unit; it is not a finite number.
ROUNDED, BROKEN = 1, 2
LATE = 16  # batches whose units may wait for utterances in float64
# Attention in float64 keeps all pairs of frames: a longer utterance is computed
# again in float32, alone.
EXACT_SECONDS = 120
# Waveforms, lengths and languages, as ``Tokenizer.encode`` takes them.
Batch = tuple[Tensor, Tensor, "list[str] | None"]


class Found(NamedTuple):
    """What is computed of a batch, on its device."""

    units: Tensor  # [N], or of several codebooks [N, Q]
    states: Tensor  # [N], int8
    places: list[slice]  # where among these N each utterance is


class Doubtful(NamedTuple):
    """An utterance that is to be computed again, and where its units go."""

    wav: Tensor  # [T]
    language: str | None
    units: list
    number: int


class InBatches:
    """What encodes batches, given how one is computed.

    Subclasses have what is named below.
    """

    # How the last digits come about: a folder of units is of one version, and
    # begun with another it is refused. It is no part of the identity, so that
    # models stay usable: one unit in a million differs.
    arithmetic = 2

    precision: str
    device: Any
    sample_rate: Any
    # Starts to compute a batch (waveforms, lengths, languages) in a precision,
    # which may be ``fp64``, too; returns a ``Found``.
    _compute: Any
    # Makes an utterance's units of those of its frames, and of its language.
    _finish: Any

    def encode(
        self, wavs: Tensor, lengths: Tensor, languages: list[str] | None = None
    ) -> list[np.ndarray | None]:
        """Turn waveforms into units; see :meth:`Tokenizer.encode`."""
        return next(self.encode_batches([(wavs, lengths, languages)]))

    def encode_batches(
        self, batches: Iterable[Batch]
    ) -> Iterator[list[np.ndarray | None]]:
        """Yield what ``encode`` gives of each batch, some batches late."""
        started: deque = deque()
        landed: list[list] = []
        doubtful: list[Doubtful] = []
        limit = 0
        # At the end, nothing: what is under way is handed on.
        for batch in itertools.chain(batches, [None]):
            if batch is not None:
                started.append((batch, self._start(*batch, self.precision)))
                limit = max(limit, batch[0].numel() // 2)  # it takes twice
            if len(started) > (batch is not None):
                first, fetch = started.popleft()
                landed.append(self._land(first, fetch, doubtful))
            due = sum(len(one.wav) for one in doubtful) >= limit
            if batch is None or due or len(landed) > LATE:
                self._settle(doubtful, limit)
            if not doubtful:
                yield from landed
                landed.clear()

    def _start(
        self,
        wavs: Tensor,
        lengths: Tensor,
        languages: list[str] | None,
        precision: str,
    ) -> Callable[[], tuple[np.ndarray, np.ndarray, list[slice]]]:
        if not len(wavs):
            return lambda: (np.zeros(0), np.zeros(0), [])
        found = self._compute(wavs, lengths, languages, precision)
        event = None
        if cuda := found.units.is_cuda:
            event = torch.cuda.Event(blocking=True)
        units, states = (
            tensor.to("cpu", non_blocking=cuda) for tensor in found[:2]
        )
        if event:
            # Of its device, which need not be the current one.
            event.record(torch.cuda.current_stream(found.units.device))

        def fetch():
            if event:  # for this batch, and not for the one behind it
                event.synchronize()
            return units.numpy(), states.numpy(), found.places

        return fetch

    def _land(self, batch, fetch, doubtful):
        """Return the units of a batch, and note which are not known yet."""
        wavs, lengths, languages = batch
        units, states, places = fetch()
        encoded: list = []
        for i, place in enumerate(places):
            language = languages and languages[i]
            state = states[place].max(initial=0)
            found = None
            if state == ROUNDED and self.precision == "fp32":
                # A copy: the batch need not stay for one of its utterances.
                wav = wavs[i, : int(lengths[i])].clone()
                doubtful.append(Doubtful(wav, language, encoded, i))
            elif state != BROKEN:
                found = self._finish(units[place], language)
            encoded.append(found)
        return encoded

    def _settle(self, doubtful, limit):
        """Compute again what is doubtful, and put its units in place."""
        doubtful.sort(key=lambda one: -len(one.wav))
        while doubtful:
            longest = len(doubtful[0].wav)
            exact = longest <= EXACT_SECONDS * self.sample_rate
            part = doubtful[: max(1, limit // longest) if exact else 1]
            del doubtful[: len(part)]
            wavs = pad_sequence([one.wav for one in part], batch_first=True)
            lengths = torch.tensor([len(one.wav) for one in part])
            languages = [one.language for one in part]
            if None in languages:
                languages = None
            how = "fp64" if exact else "fp32"
            fetch = self._start(wavs, lengths, languages, how)
            units, states, places = fetch()
            for one, place in zip(part, places, strict=True):
                if states[place].max(initial=0) != BROKEN:
                    found = self._finish(units[place], one.language)
                    one.units[one.number] = found

    def share_changed(
        self, wavs: Tensor, lengths: Tensor, languages: list[str] | None
    ) -> float:
        """Measure which share of frames gets other units than in ``fp32``."""
        here, exact = (
            self._start(wavs, lengths, languages, precision)()
            for precision in (self.precision, "fp32")
        )
        rows = np.concatenate([np.r_[place] for place in here[2]])
        changed = here[0][rows] != exact[0][rows]
        return float(changed.mean()) if changed.size else 0.0


def encode_batches(
    tokenizer: Any, batches: Iterable[Batch]
) -> Iterator[list[np.ndarray | None]]:
    """Encode batches with any tokenizer, one that can in its own time."""
    if isinstance(tokenizer, InBatches):
        yield from tokenizer.encode_batches(batches)
    else:
        for batch in batches:
            yield tokenizer.encode(*batch) if len(batch[0]) else []
