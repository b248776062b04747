from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from cloze_example import (
    BOUNDARY,
    VOCABULARY,
    make_scorer,
    naive,
    tiny_llama,
    tiny_model,
)

from speechbrain_slm.evaluation.cloze import likelihood
from speechbrain_slm.evaluation.cloze.conventions import OF_ENDINGS_ALONE
from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer


def random_pairs(count=24, seed=0, longest=20, shortest=0):
    generator = np.random.default_rng(seed)
    lengths = shortest, longest
    return [
        (
            generator.integers(0, VOCABULARY, generator.integers(*lengths)),
            generator.integers(0, VOCABULARY, generator.integers(1, 8)),
        )
        for _ in range(count)
    ]


def assert_as_defined(scores, expected):
    whole_sum, whole_units, ending_sum, ending_units = np.array(expected).T
    for name, values in {
        "whole_mean": whole_sum / whole_units,
        "whole_sum": whole_sum,
        "ending_mean": ending_sum / ending_units,
        "ending_sum": ending_sum,
    }.items():
        np.testing.assert_allclose(scores[name], values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make_model", [tiny_model, tiny_llama])
@pytest.mark.parametrize("score_end", [False, True])
def test_equals_the_definition(make_model, score_end):
    model, pairs = make_model(), random_pairs()
    scores = make_scorer(model, score_end=score_end).score(pairs)
    end = [BOUNDARY] * score_end
    assert_as_defined(scores, [naive(model, *pair, end=end) for pair in pairs])


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
@pytest.mark.parametrize("score_end", [False, True])
def test_language_tags_are_read_and_not_scored(batch_tokens, score_end):
    model = tiny_model(tags=2)
    tags = {"en": VOCABULARY + 1, "fr": VOCABULARY + 2}
    options = {"batch_tokens": batch_tokens, "score_end": score_end}
    scorer = make_scorer(model, language_tags=tags, **options)
    pairs = [
        ([tags["en"], *prompt], [*switch, *ending])
        for prompt, ending in random_pairs(6)
        for switch in ([], [tags["fr"]])
    ]
    expected = [
        naive(model, *pair, end=[BOUNDARY] * score_end, tags=tags.values())
        for pair in pairs
    ]
    units = [len(p) + len(e) - 1 + score_end for p, e in pairs[::2]]
    assert [row[1] for row in expected[1::2]] == units
    assert_as_defined(scorer.score(pairs), expected)


@pytest.mark.parametrize("share_prompts", [False, True])
@pytest.mark.parametrize("score_end", [False, True])
@pytest.mark.parametrize("tagged", [False, True])
def test_endings_alone_and_their_first_units(share_prompts, score_end, tagged):
    """Against one sequence at a time; other scores keep every bit."""
    en, fr = VOCABULARY + 1, VOCABULARY + 2
    tags = {"en": en, "fr": fr} if tagged else {}
    # Before a prompt in English, before its ending in either language, and
    # before that ending alone.
    places = [([en], [], [en]), ([en], [fr], [fr])] if tagged else [([],) * 3]
    model, end = tiny_model(tags=len(tags)), [BOUNDARY] * score_end
    ending_sum = partial(naive, model, tags=tags.values())
    pairs, first, alone = [], [], []
    for prompt, ending in random_pairs(6, shortest=1):
        for (before, switch, own), more in product(places, ([], [3])):
            pair = [*before, *prompt], [*switch, *ending, *more]
            pairs.append(pair)
            head = [*ending, *more, *end][:5]
            *_, total, _ = ending_sum(pair[0], [*switch, *head])
            first.append(total / len(head))
            *_, total, _ = ending_sum([], [*own, *ending, *more], end=end)
            alone.append(total)
    options = {"language_tags": tags, "score_end": score_end}
    options["share_prompts"] = share_prompts
    scores = make_scorer(model, endings_alone=True, **options).score(pairs)
    close = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(scores["ending_first_5"], first, **close)
    expected = scores["ending_sum"] - alone
    np.testing.assert_allclose(scores["normalised"], expected, **close)
    np.testing.assert_allclose(scores["ending_alone"], alone, **close)
    others = make_scorer(model, **options).score(pairs)
    assert list(scores) == [*others, *OF_ENDINGS_ALONE]
    for name, values in others.items():
        assert (scores[name] == values).all()


def test_equal_endings_alone_are_computed_once():
    rows = []
    model = tiny_model()
    model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.extend(kwargs["input_ids"].tolist()),
        with_kwargs=True,
    )
    endings = [1, 2, 3], [4, 5]
    pairs = [(prompt, e) for prompt in ([7, 8], [9, 6, 6]) for e in endings]
    options = {"endings_alone": True, "share_prompts": False}
    make_scorer(model, batch_tokens=1, **options).score(pairs)
    # The last symbol of a sequence predicts nothing, and is not read.
    alone = [row for row in rows if row[1] in (1, 4)]
    assert sorted(alone) == [[BOUNDARY, 1, 2], [BOUNDARY, 4]]
    assert len(rows) == len(pairs) + len(endings)


class Prior(torch.nn.Module):
    """Likes the units from 20 on best, and then those that were there."""

    device, config = torch.device("cpu"), None

    def get_input_embeddings(self):
        return torch.nn.Embedding(VOCABULARY + 1, 1)

    def forward(self, input_ids, attention_mask, use_cache):
        logits = torch.nn.functional.one_hot(input_ids, VOCABULARY + 1)
        logits = logits.cumsum(1).clamp(max=1).float()
        logits[..., 20:VOCABULARY] += 3
        return type("Output", (), {"logits": logits})


def test_a_prior_for_an_ending_does_not_decide():
    options = {"share_prompts": False, "endings_alone": True}
    scorer = make_scorer(Prior().eval(), **options)
    right, wrong = ([1, 2, 3], [3, 1]), ([1, 2, 3], [21, 25])
    for name, (one, other) in scorer.score([right, wrong]).items():
        assert (one > other) == (name == "normalised")


@pytest.mark.parametrize("batch_tokens", [1, 17, 10_000])
@pytest.mark.parametrize("positions", [3, 1024])
def test_batches_change_nothing(monkeypatch, batch_tokens, positions):
    model = tiny_model()
    pairs = random_pairs(shortest=1)
    alone = {"endings_alone": True}
    expected = make_scorer(model, **alone).score(pairs)
    monkeypatch.setattr(likelihood, "POSITIONS", positions)
    found = make_scorer(model, batch_tokens=batch_tokens, **alone).score(pairs)
    for name in ("whole_sum", "ending_sum", *OF_ENDINGS_ALONE):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_order_changes_no_bit():
    scorer = make_scorer(tiny_model(), batch_tokens=64, endings_alone=True)
    pairs = random_pairs(shortest=1)
    order = np.random.default_rng(1).permutation(len(pairs))
    expected = scorer.score(pairs)
    found = scorer.score([pairs[index] for index in order])
    for name, scores in expected.items():
        assert (found[name] == scores[order]).all()


def test_no_batch_exceeds_its_tokens():
    shapes = []
    model = tiny_model()
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape),
        with_kwargs=True,
    )
    pairs = random_pairs(count=40)
    make_scorer(model, batch_tokens=64).score(pairs)
    longest = max(len(prompt) + len(ending) + 1 for prompt, ending in pairs)
    assert longest <= 64
    assert all(rows * columns <= 64 for rows, columns in shapes)
    assert sum(rows for rows, _ in shapes) == len(pairs)
    # The last symbol of a sequence predicts nothing, and is not read.
    shapes.clear()
    make_scorer(model, batch_tokens=1).score(pairs)
    assert sum(columns for _, columns in shapes) == sum(
        len(prompt) + len(ending) for prompt, ending in pairs
    )


def test_a_sequence_may_begin_with_its_first_unit():
    model = tiny_model(tags=1)
    tag = VOCABULARY + 1
    scorer = make_scorer(
        model, start="first_unit", score_end=True, language_tags={"en": tag}
    )
    prompts = [1, 2, 3], [], [tag, 1, 2], [tag]
    pairs = [*((p, [4, 5]) for p in prompts), ([tag, 1, 2], [tag, 6])]
    expected = [
        naive(model, *pair, start=[], end=[BOUNDARY], tags=[tag])
        for pair in pairs
    ]
    # The first unit is unscored, though a tag may stand before it.
    assert [row[1] for row in expected] == [5, 2, 4, 2, 3]
    assert [row[3] for row in expected] == [3, 2, 3, 2, 2]
    assert_as_defined(scorer.score(pairs), expected)


def test_the_context_is_counted_with_the_boundaries():
    model = tiny_model()
    for start, score_end, ends in (
        ("boundary", True, 2),
        ("boundary", False, 1),
        ("first_unit", False, 0),
    ):
        scorer = make_scorer(model, start=start, score_end=score_end)
        assert scorer.context == 128
        assert scorer.count_symbols(128 - ends) == scorer.context
        scorer.score([([1] * (120 - ends), [1] * 8)])
        with pytest.raises(ValueError, match="129 symbols exceed"):
            scorer.score([([1] * (121 - ends), [1] * 8)])


def test_a_uniform_model_ties_at_any_length():
    model = tiny_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    scores = make_scorer(model).score(random_pairs(longest=60))
    for convention in ("whole_mean", "ending_mean"):
        values = scores[convention]
        assert len(set(values.tolist())) == 1
        assert values[0] == pytest.approx(-np.log(VOCABULARY + 1), abs=1e-6)


def test_bf16_model_is_summed_in_fp32():
    # All logits 0 but one of 8: log-softmax is exact in fp32, and off by
    # more than 1e-3 where it is taken in bf16.
    class Fixed(torch.nn.Module):
        device = torch.device("cpu")
        config = None

        def get_input_embeddings(self):
            return torch.nn.Embedding(VOCABULARY + 1, 1)

        def forward(self, input_ids, attention_mask, use_cache):
            logits = torch.zeros(*input_ids.shape, VOCABULARY + 1)
            logits[..., 0] = 3.0
            return type("Output", (), {"logits": logits.bfloat16()})

    scores = make_scorer(Fixed().eval()).score([([1], [2] * 50)])
    expected = -np.log(np.exp(3.0) + VOCABULARY)
    assert scores["ending_mean"][0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(value):
    model = tiny_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = value
    pairs = [([1, 2], [3]), ([1, 2], [7, 3]), ([4], [5])]
    with pytest.raises(ValueError, match=r"the second: .* finite"):
        make_scorer(model).score(pairs, ["the first", "the second", "third"])
    # A broken symbol that is read by no score hurts none.
    assert np.isfinite(make_scorer(model).score(pairs[::2])["whole_sum"]).all()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (([1], []), "pair 0: the ending has no units"),
        (([VOCABULARY], [1]), r"pair 0: unit 30 is outside \[0, 30\)"),
        (([1], [-1]), r"pair 0: unit -1 is outside \[0, 30\)"),
        (([1] * 100, [1] * 28), "129 symbols exceed .* context of 128"),
    ],
)
def test_bad_pairs_are_refused(pair, message):
    with pytest.raises(ValueError, match=message):
        make_scorer(tiny_model()).score([pair])


def test_bad_scorers_are_refused():
    model = tiny_model()
    for options, message in (
        ({"language_tags": {"en": 31}}, r"does not hold .* tags \{'en': 31"),
        ({"start": "unit"}, "start is 'unit'; expected bound"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make_scorer(model, **options)
    with pytest.raises(ValueError, match="embeds 31 symbols"):
        LikelihoodScorer(model, VOCABULARY, VOCABULARY + 1)
    with pytest.raises(ValueError, match="training mode"):
        make_scorer(tiny_model().train())
    tagged = make_scorer(tiny_model(tags=1), language_tags={"en": 31})
    with pytest.raises(ValueError, match="pair 0: the ending has no units"):
        tagged.score([([31, 1], [31])])
    with pytest.raises(ValueError, match="start is 'first_unit', under which"):
        make_scorer(model, start="first_unit", endings_alone=True)
    alone = make_scorer(model, endings_alone=True)
    with pytest.raises(ValueError, match="pair 1: it has no prompt"):
        alone.score([([1], [2]), ([], [2])])
    first = make_scorer(model, start="first_unit")
    with pytest.raises(ValueError, match="pair 1: the ending's only unit"):
        first.score([([1], [2]), ([], [2])])
