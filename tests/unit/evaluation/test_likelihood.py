import numpy as np
import pytest
import torch
from cloze_example import VOCABULARY, tiny_llama, tiny_model

from speechbrain_slm.evaluation.cloze import likelihood
from speechbrain_slm.evaluation.cloze.likelihood import LikelihoodScorer

BOUNDARY = VOCABULARY


def random_pairs(count=24, seed=0, longest=20):
    generator = np.random.default_rng(seed)
    return [
        (
            generator.integers(0, VOCABULARY, generator.integers(0, longest)),
            generator.integers(0, VOCABULARY, generator.integers(1, 8)),
        )
        for _ in range(count)
    ]


def make_scorer(model, **options):
    return LikelihoodScorer(model, VOCABULARY, BOUNDARY, **options)


def naive(model, prompt, ending, score_end):
    """Score one unpadded sequence, straight from the definition."""
    end = [BOUNDARY] if score_end else []
    ids = torch.tensor([[BOUNDARY, *prompt, *ending, *end]])
    with torch.no_grad():
        logs = model(ids).logits[0].double().log_softmax(dim=-1)
    units = [logs[t, ids[0, t + 1]].item() for t in range(ids.shape[1] - 1)]
    tail = units[len(prompt) :]
    return sum(units), len(units), sum(tail), len(tail)


@pytest.mark.parametrize("make_model", [tiny_model, tiny_llama])
@pytest.mark.parametrize("score_end", [False, True])
def test_equals_the_definition(make_model, score_end):
    model = make_model()
    pairs = random_pairs()
    scores = make_scorer(model, score_end=score_end).score(pairs)
    expected = np.array([naive(model, *pair, score_end) for pair in pairs])
    found = [
        scores.whole_sum,
        scores.whole_units,
        scores.ending_sum,
        scores.ending_units,
    ]
    np.testing.assert_allclose(np.array(found).T, expected, atol=1e-5)
    whole_sum, whole_units, ending_sum, ending_units = expected.T
    for convention, values in {
        "whole_mean": whole_sum / whole_units,
        "whole_sum": whole_sum,
        "ending_mean": ending_sum / ending_units,
        "ending_sum": ending_sum,
    }.items():
        np.testing.assert_allclose(scores.score(convention), values, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
@pytest.mark.parametrize("score_end", [False, True])
def test_language_tags_are_read_and_not_scored(batch_tokens, score_end):
    model = tiny_model(tags=2)
    tags = {"en": VOCABULARY + 1, "fr": VOCABULARY + 2}
    scorer = make_scorer(
        model,
        batch_tokens=batch_tokens,
        score_end=score_end,
        language_tags=tags,
    )
    for prompt, ending in random_pairs(6):
        sequences = {
            "same": ([tags["en"], *prompt], [*ending]),
            "other": ([tags["en"], *prompt], [tags["fr"], *ending]),
        }
        scores = scorer.score(list(sequences.values()))
        for index, pair in enumerate(sequences.values()):
            end = [BOUNDARY] if score_end else []
            ids = torch.tensor([[BOUNDARY, *pair[0], *pair[1], *end]])
            with torch.no_grad():
                logs = model(ids).logits[0].double().log_softmax(dim=-1)
            logs = logs[range(ids.shape[1] - 1), ids[0, 1:]]
            begin = len(pair[0])
            whole = [
                value
                for value, symbol in zip(logs, ids[0, 1:], strict=True)
                if symbol not in tags.values()
            ]
            tail = logs[begin:][-(len(ending) + score_end) :]
            assert scores.whole_units[index] == len(whole)
            assert scores.ending_units[index] == len(ending) + score_end
            assert len(whole) == len(prompt) + len(ending) + score_end
            assert scores.whole_sum[index] == pytest.approx(
                float(sum(whole)), abs=1e-5
            )
            assert scores.ending_sum[index] == pytest.approx(
                tail.sum().item(), abs=1e-5
            )


@pytest.mark.parametrize("batch_tokens", [1, 17, 10_000])
@pytest.mark.parametrize("positions", [3, 1024])
def test_batches_and_chunks_change_nothing(
    monkeypatch, batch_tokens, positions
):
    model = tiny_model()
    pairs = random_pairs()
    expected = make_scorer(model).score(pairs)
    monkeypatch.setattr(likelihood, "POSITIONS", positions)
    found = make_scorer(model, batch_tokens=batch_tokens).score(pairs)
    for name in ("whole_sum", "ending_sum"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), atol=1e-5
        )


def test_order_changes_no_bit():
    scorer = make_scorer(tiny_model(), batch_tokens=64)
    pairs = random_pairs()
    order = np.random.default_rng(1).permutation(len(pairs))
    expected = scorer.score(pairs)
    found = scorer.score([pairs[index] for index in order])
    assert (found.whole_sum == expected.whole_sum[order]).all()
    assert (found.ending_sum == expected.ending_sum[order]).all()


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
    pairs = [
        ([1, 2, 3], [4, 5]),
        ([], [4, 5]),
        ([tag, 1, 2], [4, 5]),
        ([tag], [4, 5]),
        ([tag, 1, 2], [tag, 6]),
    ]
    scores = scorer.score(pairs)
    assert scores.whole_units.tolist() == [5, 2, 4, 2, 3]
    assert scores.ending_units.tolist() == [3, 2, 3, 2, 2]
    for index, (prompt, ending) in enumerate(pairs):
        ids = torch.tensor([[*prompt, *ending, BOUNDARY]])
        with torch.no_grad():
            logs = model(ids).logits[0].double().log_softmax(dim=-1)
        # The first unit is unscored, though a tag may stand before it.
        first = 1 if ids[0, 0] == tag else 0
        units = [
            (t, logs[t - 1, symbol].item())
            for t, symbol in enumerate(ids[0].tolist())
            if t > first and symbol != tag
        ]
        tail = [value for t, value in units if t >= len(prompt)]
        assert scores.whole_sum[index] == pytest.approx(
            sum(value for _, value in units), abs=1e-5
        )
        assert scores.ending_sum[index] == pytest.approx(sum(tail), abs=1e-5)


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
        values = scores.score(convention)
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
    assert scores.score("ending_mean")[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(value):
    model = tiny_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = value
    pairs = [([1, 2], [3]), ([1, 2], [7, 3]), ([4], [5])]
    with pytest.raises(ValueError, match=r"the second: .* finite"):
        make_scorer(model).score(pairs, ["the first", "the second", "third"])
    # A broken symbol that is read by no score hurts none.
    assert np.isfinite(make_scorer(model).score(pairs[::2]).whole_sum).all()


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
    with pytest.raises(ValueError, match="embeds 31 symbols"):
        LikelihoodScorer(model, VOCABULARY, VOCABULARY + 1)
    with pytest.raises(ValueError, match=r"does not hold .* tags \{'en': 31"):
        make_scorer(model, language_tags={"en": VOCABULARY + 1})
    tagged = make_scorer(tiny_model(tags=1), language_tags={"en": 31})
    with pytest.raises(ValueError, match="pair 0: the ending has no units"):
        tagged.score([([31, 1], [31])])
    with pytest.raises(ValueError, match="start is 'unit'; expected one of"):
        make_scorer(model, start="unit")
    first = make_scorer(model, start="first_unit")
    with pytest.raises(ValueError, match="pair 1: the ending's only unit"):
        first.score([([1], [2]), ([], [2])])
    with pytest.raises(ValueError, match="batch_tokens is 0"):
        make_scorer(model, batch_tokens=0)
    with pytest.raises(ValueError, match="training mode"):
        make_scorer(model.train())
    with pytest.raises(ValueError, match="'mean' is unknown; expected one of"):
        make_scorer(model.eval()).score([([1], [2])]).score("mean")
