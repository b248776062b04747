"""Scores of a tiny model that no change of the code may move.

Weights and units are formulas, so that they are the same under every version
of PyTorch. golden_scores.json holds the scores of a plain float64 model, taken
from the definition; running this file as a script prints them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from speechbrain_slm.evaluation.cloze.conventions import (
    LIKELIHOODS,
    OF_ENDINGS_ALONE,
)
from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer

GOLDEN = Path(__file__).with_name("golden_scores.json")
UNITS = 30
NAMES = [name for name in LIKELIHOODS if name not in OF_ENDINGS_ALONE]
# Sharing prompts or not, what is read first, and whether the end counts.
SETTINGS = [
    (start, end) for start in ("boundary", "first_unit") for end in (0, 1)
]


def make_model():
    """Make a Qwen2 whose every weight is a sine of its place."""
    model = AutoModelForCausalLM.from_config(
        Qwen2Config(
            vocab_size=UNITS + 1,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=False,
        ),
        dtype=torch.float32,
    )
    with torch.no_grad():
        for number, (_, weight) in enumerate(sorted(model.named_parameters())):
            places = np.arange(weight.numel()).reshape(weight.shape)
            values = np.sin(0.7 * places + 0.3 * places**1.5 + number)
            # Norms are about 1.
            values = 0.4 * values + (weight.dim() == 1) * 0.5
            weight.copy_(torch.from_numpy(values))
    return model.eval()


def make_pairs():
    """Make six prompts, one of them empty, with three endings each."""
    return [
        (
            [(7 * i * i + 11 * i + 5 * p) % UNITS for i in range(4 * p)],
            [(3 * i * i + 13 * i + 5 * p + e) % UNITS for i in range(2 + e)],
        )
        for p in range(6)
        for e in range(3)
    ]


def from_the_definition(start, score_end):
    """Score in float64, one sequence at a time; [likelihoods][pairs]."""
    model, rows = make_model().double(), []
    for prompt, ending in make_pairs():
        begin = [UNITS] if start == "boundary" else []
        ids = [*begin, *prompt, *ending, *[UNITS] * score_end]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        logs = logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]].numpy()
        tail = logs[max(len(begin) + len(prompt) - 1, 0) :]
        head = logs[: len(logs) - len(tail)]
        none = tail[:0]  # what needs an ending alone: test_likelihood.py
        rows.append([LIKELIHOODS[name](head, tail, none) for name in NAMES])
    return np.array(rows).T


@pytest.mark.parametrize("share_prompts", [False, True])
@pytest.mark.parametrize(("start", "score_end"), SETTINGS)
def test_scores_are_those_on_record(start, score_end, share_prompts):
    golden = json.loads(GOLDEN.read_text())[f"{start}, end {score_end}"]
    scorer = LikelihoodScorer(
        make_model(),
        vocabulary_size=UNITS,
        boundary=UNITS,
        start=start,
        score_end=bool(score_end),
        share_prompts=share_prompts,
    )
    found = scorer.score(make_pairs())
    for name, scores in golden.items():
        np.testing.assert_allclose(found[name], scores, rtol=0, atol=1e-4)


def test_the_record_tells_endings_apart():
    golden = json.loads(GOLDEN.read_text())["boundary, end 0"]
    assert len(golden) >= 4
    for scores in golden.values():
        assert len(scores) == len(make_pairs())
        # Twice the tolerance.
        assert np.diff(np.sort(scores)).min() > 2e-4


if __name__ == "__main__":
    record = {}
    for start, end in SETTINGS:
        scores = from_the_definition(start, end).round(8).tolist()
        name = f"{start}, end {end}"
        record[name] = dict(zip(NAMES, scores, strict=True))
    print(json.dumps(record, indent=1))
