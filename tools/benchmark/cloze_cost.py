"""Cost of cloze with shared prompts against one pair at a time, as JSON.

    python tools/benchmark/cloze_cost.py
    python tools/benchmark/cloze_cost.py --stories 4 --repetitions 1

Random units. Each story is a prompt in two languages with three endings in
two: the right one, the wrong one of sSC and that of sTC. A prompt of 40 to 300
units is four endings long on average. The full grid has eight items a story:
two prompt languages, two ending languages, sSC and sTC; each item is two
pairs of a prompt and an ending. One direction alone (English, sSC) has one
item a story: one prompt and two endings.

Models: that of hparams/lm/qwen2_mini.yaml, and a Qwen2 of 4.06 M parameters.
Both ways of scoring take turns on the same pairs, in batches of --batch_tokens
positions, so that whatever else the machine does slows both down.

Keys:

- token_ratio_grid, token_ratio_pair: positions that the model computes with
  shared prompts by those of the same pairs one by one, whose padding is not
  counted (with shared prompts there is none); for the full grid and for one
  direction alone. Equal endings of a prompt, as the right one that sSC and sTC
  have in common, are computed once.
- max_difference: the largest difference between the two ways of a score (nats)
  under any convention, over both models and both sets of items.
- speedup: items of the grid by CPU second, shared by independent, for each
  model; the quotient of the medians.
- items_per_cpu_second, items_per_second: both ways, for each model.
- endings_alone: CPU seconds of the grid with each distinct ending scored once
  more without its prompt (for `normalised`), by those without, shared prompts
  both times, for each model; they take turns, too.
- load: of the machine (1 minute), before and after. More than the threads
  used means that others shared its cores.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from hyperpyyaml import load_hyperpyyaml
from synthetic import MODEL, UNITS

from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer
from speechbrain_slm.models.decoder import decoder_lm

ROOT = Path(__file__).parents[2]
LANGUAGES = ("en", "fr")
ENDINGS = ("right", "wrong", "topic")
BENCHMARKS = {"sSC": ("right", "wrong"), "sTC": ("right", "topic")}


def make_models(seed=0):
    """Return name -> (model, vocabulary size) of both models."""
    torch.manual_seed(seed)
    with open(ROOT / "hparams/lm/qwen2_mini.yaml", encoding="utf-8") as file:
        mini = load_hyperpyyaml(file, {"vocabulary_size": 4000})["model"]
    larger = decoder_lm("qwen2", UNITS, **MODEL)
    return {"mini": (mini.eval(), 4000), "4.06M": (larger.eval(), UNITS)}


def make_pairs(stories, vocabulary_size, seed=0):
    """Return the pairs of the full grid and those of one direction."""
    generator = np.random.default_rng(seed)

    def units(length):
        return generator.integers(0, vocabulary_size, length)

    grid, one = [], []
    for _ in range(stories):
        length = np.exp(generator.uniform(np.log(40), np.log(300)))
        # A language says the same in more or fewer units.
        prompts = {
            name: units(int(length * generator.uniform(0.9, 1.1)))
            for name in LANGUAGES
        }
        endings = {
            (name, kind): units(int(length / 4 * generator.uniform(0.7, 1.3)))
            for name in LANGUAGES
            for kind in ENDINGS
        }
        grid += [
            (prompts[prompt], endings[ending, kind])
            for prompt in LANGUAGES
            for ending in LANGUAGES
            for kinds in BENCHMARKS.values()
            for kind in kinds
        ]
        one += [
            (prompts["en"], endings["en", kind]) for kind in BENCHMARKS["sSC"]
        ]
    return {"grid": grid, "pair": one}


def make_scorer(model, size, share_prompts, batch_tokens, alone=False):
    """Return a scorer over a model's units."""
    return LikelihoodScorer(
        model,
        vocabulary_size=size,
        boundary=size,
        batch_tokens=batch_tokens,
        share_prompts=share_prompts,
        endings_alone=alone,
    )


def count_tokens(scorer, pairs):
    """Return the likelihoods and two counts: computed, and no padding."""
    counts = []

    def count(module, inputs, options):
        computed = options["input_ids"].numel()
        mask = options["attention_mask"]
        # Rows with shared prompts have no padding, and no mask of positions.
        real = int(mask.sum()) if mask.dim() == 2 else computed
        counts.append((computed, real))

    hook = scorer.model.register_forward_pre_hook(count, with_kwargs=True)
    likelihoods = scorer.score(pairs)
    hook.remove()
    return likelihoods, np.sum(counts, axis=0)


def compare(shared, independent, pairs):
    """Return the quotient of positions and the largest difference."""
    shared.score(pairs[:2])  # Tries the model once, which is not counted.
    one, tokens = count_tokens(shared, pairs)
    other, others = count_tokens(independent, pairs)
    difference = max(
        float(np.abs(one[name] - other[name]).max()) for name in one
    )
    return tokens[0] / others[1], difference


def take_turns(scorers, pairs, repetitions):
    """Return the median CPU and wall seconds of each scorer."""
    seconds = [[] for _ in scorers]
    for _ in range(repetitions):
        for turns, scorer in zip(seconds, scorers, strict=True):
            cpu, wall = time.process_time(), time.perf_counter()
            scorer.score(pairs)
            turns.append(
                (time.process_time() - cpu, time.perf_counter() - wall)
            )
    return [np.median(turns, axis=0) for turns in seconds]


def measure(stories, repetitions, batch_tokens):
    """Return what the benchmark prints."""
    ratios, differences, speedup, cpu, wall = {}, [], {}, {}, {}
    alone = {}
    parameters = {}
    load = [round(os.getloadavg()[0], 2)]
    for name, (model, size) in make_models().items():
        parameters[name] = sum(part.numel() for part in model.parameters())
        pairs = make_pairs(stories, size)
        scorers = [
            make_scorer(model, size, *way)
            for way in (
                (True, batch_tokens),
                (False, batch_tokens),
                (True, batch_tokens, True),
            )
        ]
        for kind, chosen in pairs.items():
            ratios[kind], difference = compare(*scorers[:2], chosen)
            differences.append(difference)
        seconds = take_turns(scorers, pairs["grid"], repetitions)
        items = len(pairs["grid"]) / 2
        speedup[name] = round(seconds[1][0] / seconds[0][0], 3)
        alone[name] = round(seconds[2][0] / seconds[0][0], 3)
        for column, speeds in enumerate((cpu, wall)):
            speeds[name] = {
                way: round(items / found[column], 2)
                for way, found in zip(
                    ("shared", "independent"), seconds[:2], strict=True
                )
            }
    load.append(round(os.getloadavg()[0], 2))
    return {
        "token_ratio_grid": round(ratios["grid"], 4),
        "token_ratio_pair": round(ratios["pair"], 4),
        "max_difference": max(differences),
        "speedup": speedup,
        "endings_alone": alone,
        "items_per_cpu_second": cpu,
        "items_per_second": wall,
        "parameters": parameters,
        "stories": stories,
        "repetitions": repetitions,
        "batch_tokens": batch_tokens,
        "threads": torch.get_num_threads(),
        "load": load,
    }


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stories", type=int, default=60)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--batch_tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        json.dumps(
            measure(
                arguments.stories,
                arguments.repetitions,
                arguments.batch_tokens,
            )
        )
    )


if __name__ == "__main__":
    main()
