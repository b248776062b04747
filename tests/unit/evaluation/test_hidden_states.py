import numpy as np
import pytest
import torch
from cloze_example import VOCABULARY, tiny_llama, tiny_model

from speechbrain_slm.evaluation.alignment.hidden_states import (
    POOLINGS,
    StatePooler,
    pooling_weights,
)


def sequences(count=9, seed=0):
    """Sequences of very different lengths, so that batches are padded."""
    generator = np.random.default_rng(seed)
    return [
        (generator.integers(0, VOCABULARY, length), "en")
        for length in generator.permutation(np.arange(1, 1 + 5 * count, 5))
    ]


def pooler(model=None, **options):
    model = model or tiny_model()
    return StatePooler(model, VOCABULARY, VOCABULARY, **options)


def by_hand(model, head, units):
    """Pool by the definition, one sequence alone: [poolings, L + 1, D]."""
    ids = torch.tensor([[*head, *units.tolist()]])
    with torch.no_grad():
        layers = model(ids, output_hidden_states=True).hidden_states
    layers = [layer[0, len(head) :].double().numpy() for layer in layers]
    position = np.arange(1, len(units) + 1)[:, None]
    weighted = [(layer * position).sum(0) / position.sum() for layer in layers]
    means, last = zip(
        *((one.mean(axis=0), one[-1]) for one in layers), strict=True
    )
    return np.stack([means, weighted, last])


@pytest.mark.parametrize("make", [tiny_model, tiny_llama])
def test_states_are_those_of_the_definition_in_any_batch(make):
    model, batch = make(), sequences()
    expected = [by_hand(model, [VOCABULARY], units) for units, _ in batch]
    longest = max(len(units) for units, _ in batch) + 1
    for batch_tokens in (1, 8 * longest):
        states = pooler(model, batch_tokens=batch_tokens).states(batch)
        assert states.shape == (9, len(POOLINGS), 3, 32)
        np.testing.assert_allclose(states, expected, rtol=0, atol=1e-5)
    turned = pooler(model, batch_tokens=8 * longest).states(batch[::-1])
    np.testing.assert_array_equal(turned[::-1], states)


def test_equal_sequences_are_run_once():
    model, rows = tiny_model(), []
    model.base_model.register_forward_pre_hook(
        lambda _, __, inputs: rows.append(len(inputs["input_ids"])),
        with_kwargs=True,
    )
    batch = sequences(4)
    states = pooler(model).states(batch + batch[:2])
    assert sum(rows) == 4
    np.testing.assert_array_equal(states[4:], states[:2])


def test_a_tag_is_read_and_not_pooled():
    model = tiny_model(tags=2)
    tags = {"en": VOCABULARY + 1, "fr": VOCABULARY + 2}
    units = sequences(3)[0][0]
    tagged = pooler(model, language_tags=tags)
    states = tagged.states([(units, "fr"), (units, "en")])
    for state, language in zip(states, ("fr", "en"), strict=True):
        head = [VOCABULARY, tags[language]]
        expected = by_hand(model, head, units)
        np.testing.assert_allclose(state, expected, rtol=0, atol=1e-5)
    # Embeddings do not know the tag; what comes after does.
    np.testing.assert_array_equal(states[0][:, 0], states[1][:, 0])
    assert np.abs(states[0][:, 1] - states[1][:, 1]).max() > 1e-3


def test_weights():
    for length in (1, 2, 7):
        for name in POOLINGS:
            assert pooling_weights(length, name).sum() == pytest.approx(1)
    assert pooling_weights(4, "weighted").tolist() == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("units", "language", "message"),
    [
        ([], "en", "story x: no units"),
        ([3, VOCABULARY], "en", r"story x: unit 30 is outside \[0, 30\)"),
        ([-1, 3], "en", r"story x: unit -1 is outside \[0, 30\)"),
        ([1] * 127, "en", "story x: 129 symbols exceed .* context of 128"),
        ([1], "de", "story x: the model has no tag for 'de', only for en"),
    ],
)
def test_bad_sequences_are_named(units, language, message):
    model = tiny_model(tags=1)
    tagged = pooler(model, language_tags={"en": VOCABULARY + 1})
    with pytest.raises(ValueError, match=message):
        tagged.states([([1, 2], "en"), (units, language)], ["a", "story x"])


def test_states_that_are_not_finite_are_named():
    model = tiny_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = torch.nan
    # In one batch: the broken row alone is blamed.
    with pytest.raises(ValueError, match="bad: its hidden states are not fin"):
        pooler(model).states([([1, 2], "en"), ([7], "en")], ["good", "bad"])


@pytest.mark.parametrize(
    ("training", "options", "message"),
    [
        (True, {}, "training mode"),
        (False, {"batch_tokens": 0}, "batch_tokens is 0"),
        (False, {"poolings": ["mean", "max"]}, "pooling is 'max'; expected m"),
    ],
)
def test_bad_settings_are_refused(training, options, message):
    with pytest.raises(ValueError, match=message):
        pooler(tiny_model().train(training), **options)
