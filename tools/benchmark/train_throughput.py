"""Time the LM Brain against a bare loop; prints one line of JSON.

    python tools/benchmark/train_throughput.py
    python tools/benchmark/train_throughput.py --no-compile

A Qwen2 of 4.06 M parameters in fp32 trains on synthetic stories (2,000, of
401 units on average, lognormal) in rows of 1024 units, packed by best fit,
with attention blocked between stories. Both train on the same rows with the
same micro-batches, by turns of a few steps, so that whatever else the machine
does slows both down:

- the Brain, as a recipe runs it: rows built from the store ahead of time,
  learning-rate schedule, clipping, the check for NaN, logging;
- the bare loop: rows in memory, forward, backward, fused AdamW.

Keys:

- tokens_per_cpu_second, bare_tokens_per_cpu_second: tokens that are no
  padding, by CPU second of the process, all threads together; the median of
  the turns.
- ratio: the first by the second, over all turns together.
- padding: share of the positions that are padding.
- tokens_per_second, bare_tokens_per_second: by wall time.
- warm_up_seconds: before the first turn, compilation included; not counted.
- load: of the machine (1 minute), before and after. More than the threads
  used means that others shared its cores.
"""

import argparse
import copy
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from synthetic import MODEL, SOURCES, UNITS, brain_settings, write_stories

from speechbrain_slm.brains.lm import LMBrain
from speechbrain_slm.dataio.plan import TokenPlan
from speechbrain_slm.dataio.reader import UnitStore
from speechbrain_slm.models.attention import block_attention
from speechbrain_slm.models.decoder import decoder_lm


class Clock:
    """CPU and wall seconds between ``start`` and ``stop``, turn by turn."""

    def __init__(self):
        self.turns = []

    def start(self):
        """Begin a turn."""
        self._began = time.process_time(), time.perf_counter()

    def stop(self, tokens):
        """End a turn in which so many tokens were trained on."""
        cpu, wall = self._began
        self.turns.append(
            (tokens, time.process_time() - cpu, time.perf_counter() - wall)
        )

    def speed(self, column):
        """Return the median of tokens a second; 1 for CPU, 2 for wall."""
        return statistics.median(turn[0] / turn[column] for turn in self.turns)

    def total(self):
        """Return all tokens by all CPU seconds."""
        tokens, cpu, _ = np.sum(self.turns, axis=0)
        return tokens / cpu


class BareLoop:
    """Forward, backward and AdamW over batches that are in memory."""

    def __init__(self, model, compiled, learning_rate):
        self.model = torch.compile(model, dynamic=False) if compiled else model
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, fused=True
        )

    def step(self, parts):
        """Train on the micro-batches of one step, as LMBrain weighs them."""
        scored = sum(count for _, count in parts)
        for batch, _ in parts:
            inputs = {key: batch[key] for key in batch if key != "labels"}
            logits = self.model(**inputs, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1),
                batch["labels"].flatten(),
                reduction="sum",
            )
            (loss / scored).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class TimedBrain(LMBrain):
    """An LM Brain that lets the bare loop train after each of its turns."""

    def race(self, bare, arguments):
        """Say against what, and how long."""
        self.bare, self.arguments = bare, arguments
        self.clock, self.bare_clock = Clock(), Clock()

    def _after_step(self, valid_sets):
        super()._after_step(valid_sets)
        step, turn = self.optimizer_step, self.arguments.steps
        begin = step - turn
        if begin < 0 or step % turn:
            return
        tokens = self.real_tokens(begin, step)
        if begin:
            self.clock.stop(tokens)
        parts = [self.prepare(number) for number in range(begin, step)]
        self.bare_clock.start()
        for part in parts:
            self.bare.step(part)
        if begin:
            self.bare_clock.stop(tokens)
        else:
            self.warm_up = time.perf_counter() - self.began
        self.clock.start()

    def real_tokens(self, begin, end):
        """Count what is no padding in some steps."""
        counts = [self.plan.count(step) for step in (begin, end)]
        seen = [sum(c.values()) - c["padding"] for c in counts]
        return seen[1] - seen[0]


def make_brain(folder, model, arguments):
    """Make an LM Brain as a recipe would."""
    run_opts = {
        "grad_accumulation_factor": arguments.micro_batches,
        "compile": arguments.compile,
    }
    return TimedBrain(
        **brain_settings(
            model,
            folder,
            run_opts,
            attention="blocked",
            learning_rate=arguments.learning_rate,
        )
    )


def measure(folder, arguments):
    """Return what the benchmark prints."""
    load = os.getloadavg()[0]
    length = arguments.row_length
    write_stories(
        folder / "store", arguments.stories, arguments.mean, length - 1
    )
    store = UnitStore(folder / "store")
    steps = arguments.steps * (1 + arguments.turns)
    tokens = steps * arguments.rows_per_step * length
    plan = TokenPlan(
        {"en": store},
        SOURCES,
        [{"tokens": tokens, "mixture": {"en": 1}}],
        row_length=length,
        rows_per_step=arguments.rows_per_step,
        seed=0,
        packing="best_fit",
    )
    torch.manual_seed(0)
    model = decoder_lm("qwen2", UNITS, **MODEL)
    twin = copy.deepcopy(model)
    brain = make_brain(folder, model, arguments)
    brain.began = time.perf_counter()
    bare = BareLoop(twin, arguments.compile, arguments.learning_rate)
    brain.race(bare, arguments)
    block_attention(twin)
    brain.fit(plan)
    seen = plan.count(plan.num_steps)
    return {
        "tokens_per_cpu_second": round(brain.clock.speed(1)),
        "bare_tokens_per_cpu_second": round(brain.bare_clock.speed(1)),
        "ratio": round(brain.clock.total() / brain.bare_clock.total(), 4),
        "padding": round(seen["padding"] / sum(seen.values()), 5),
        "tokens_per_second": round(brain.clock.speed(2)),
        "bare_tokens_per_second": round(brain.bare_clock.speed(2)),
        "turns": arguments.turns,
        "steps_per_turn": arguments.steps,
        "rows_per_step": arguments.rows_per_step,
        "micro_batches": arguments.micro_batches,
        "compile": arguments.compile,
        "threads": torch.get_num_threads(),
        "parameters": model.num_parameters(),
        "warm_up_seconds": round(brain.warm_up, 1),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
    }


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stories", type=int, default=2000)
    parser.add_argument("--mean", type=float, default=401, help="units a story")
    parser.add_argument("--row_length", type=int, default=1024)
    parser.add_argument("--rows_per_step", type=int, default=8)
    parser.add_argument("--micro_batches", type=int, default=8, help="a step")
    parser.add_argument("--steps", type=int, default=2, help="a turn")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(Path(temporary), arguments)))


if __name__ == "__main__":
    main()
