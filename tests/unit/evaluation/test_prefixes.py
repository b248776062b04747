"""Shared prompts: the same scores as one pair at a time, for less."""

import numpy as np
import pytest
import torch
from cloze_example import VOCABULARY, make_scorer, naive, tiny_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from speechbrain_slm.evaluation.cloze.prefixes import make_rows

SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GROUPED = {**SIZE, "num_key_value_heads": 2}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
MAMBA = {"hidden_size": 32, "num_hidden_layers": 2}
WINDOW = {**GROUPED, "sliding_window": 16}
CONV = {**GROUPED, "layer_types": ["conv", "full_attention"]}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32, **SIZE}
del OPT["intermediate_size"]
FAMILIES = {
    "qwen2": (Qwen2Config, GROUPED),
    "llama": (LlamaConfig, GROUPED),
    "gpt2": (GPT2Config, GPT2),
    "opt": (OPTConfig, OPT),
    "neox": (GPTNeoXConfig, SIZE),
    "gemma": (GemmaConfig, {**GROUPED, "head_dim": 8}),
    "mistral": (MistralConfig, {**GROUPED, "sliding_window": 60}),
}


def make_model(config_class, config, attention=None):
    """Make a small model of any family, with weights far from zero."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config_class(vocab_size=VOCABULARY + 1, **config)
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.copy_(0.2 * torch.randn_like(weight))
    if attention:
        model.set_attn_implementation(attention)
    return model


def make_pairs(prompts=4, endings=4, seed=0, longest=40):
    """Make pairs; the first prompt is empty."""
    generator = np.random.default_rng(seed)

    def units(length):
        return generator.integers(0, VOCABULARY, length)

    lengths = (0, *generator.integers(1, longest, prompts - 1))
    return [
        (prompt, units(generator.integers(1, 9)))
        for prompt in [units(length) for length in lengths]
        for _ in range(endings)
    ]


def assert_alike(found, expected, atol=1e-5):
    for name in expected:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=0, atol=atol, err_msg=name
        )


def one_by_one(model, pairs, **options):
    return make_scorer(model, share_prompts=False, **options).score(pairs)


def count_positions(model):
    """Return a list that gets the positions of each batch computed."""
    shapes = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].numel()),
        with_kwargs=True,
    )
    return shapes


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_scores_as_one_pair_at_a_time(family, attention):
    model = make_model(*FAMILIES[family], attention)
    pairs = make_pairs()
    found = make_scorer(model).score(pairs)
    assert_alike(found, one_by_one(model, pairs), 2e-5)
    whole, _, ending, _ = np.array([naive(model, *pair) for pair in pairs]).T
    assert_alike(found, {"whole_sum": whole, "ending_sum": ending}, 2e-5)
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("score_end", [False, True])
@pytest.mark.parametrize("start", ["boundary", "first_unit"])
def test_every_convention_scores_as_alone(tagged, score_end, start):
    model = tiny_model(tags=2)
    tags = {"en": VOCABULARY + 1, "fr": VOCABULARY + 2} if tagged else {}
    pairs = [
        (prompt, ending)
        for prompt, ending in make_pairs(6, 3, longest=20)
        if start == "boundary" or len(prompt)
    ]
    if tagged:
        switch = [], [tags["fr"]]
        pairs = [
            ([tags["en"], *prompt], [*switch[index % 2], *ending])
            for index, (prompt, ending) in enumerate(pairs)
        ]
        if start == "boundary":
            # Prompts of a tag alone, whose endings begin with the first unit.
            pairs += [([tags["fr"]], [1, 2]), ([tags["fr"]], [3])]
    options = {"start": start, "score_end": score_end, "language_tags": tags}
    found = make_scorer(model, **options).score(pairs)
    assert_alike(found, one_by_one(model, pairs, **options))


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_a_prompt_with_many_endings_is_split(batch_tokens):
    model = tiny_model()
    shapes = count_positions(model)
    pairs = [(np.arange(20), ending) for _, ending in make_pairs(8, 5)]
    scorer = make_scorer(model, batch_tokens=batch_tokens)
    scorer.score(pairs)  # the first one tries whether the model can share
    shapes.clear()
    found = scorer.score(pairs)
    count = len(shapes)
    fed = sum(len(ending) - 1 for _, ending in pairs)
    assert sum(shapes) == 21 * count + fed
    assert max(shapes) <= batch_tokens or count == 40
    assert count == {4096: 1, 1: 40}.get(batch_tokens, count)
    assert 1 < count < 40 or batch_tokens != 64
    assert_alike(found, one_by_one(model, pairs))


@pytest.mark.parametrize("batch_tokens", [1, 30, 100, 4096])
def test_batches_and_order_change_nothing(batch_tokens):
    model = tiny_model()
    pairs = make_pairs(12, 3)
    expected = make_scorer(model).score(pairs)
    scorer = make_scorer(model, batch_tokens=batch_tokens)
    found = scorer.score(pairs)
    assert_alike(found, expected)
    order = np.random.default_rng(1).permutation(len(pairs))
    again = scorer.score([pairs[index] for index in order])
    for name in found:
        assert (again[name] == found[name][order]).all()


def test_equal_pairs_tie_and_cost_nothing():
    model = tiny_model()
    pairs = make_pairs(3, 3)
    once = make_scorer(model).score(pairs)
    scorer = make_scorer(model)
    scorer.score(pairs)
    shapes = count_positions(model)
    with_prompt = pairs[3:]
    scorer.score(with_prompt)
    computed = sum(shapes)
    shapes.clear()
    twice = scorer.score([*with_prompt, *with_prompt])
    assert sum(shapes) == computed
    for name, scores in twice.items():
        one, other = np.split(scores, 2)
        assert (one == other).all()
        np.testing.assert_allclose(one, once[name][3:], atol=1e-5)


def test_a_bf16_model_scores_as_one_pair_at_a_time():
    model = make_model(*FAMILIES["qwen2"]).bfloat16()
    pairs = make_pairs()
    found, alone = make_scorer(model).score(pairs), one_by_one(model, pairs)
    # A mean moves by no more than a step of bf16 does.
    means = {name: alone[name] for name in ("whole_mean", "ending_mean")}
    assert_alike(found, means, 0.02)


def test_an_ending_does_not_touch_another():
    model = tiny_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[29] = torch.nan
    generator = np.random.default_rng(0)
    prompt, *endings = (generator.integers(0, 29, 6) for _ in range(5))
    expected = make_scorer(model).score([(prompt, each) for each in endings])
    # The last unit of an ending is not read.
    broken = [(prompt, [29, 1]), *((prompt, each) for each in endings)]
    with pytest.raises(ValueError, match=r"pair 0: .* is nan"):
        make_scorer(model).score(broken)
    unread = [(prompt, [1, 29]), *((prompt, each) for each in endings)]
    found = make_scorer(model).score(unread)
    np.testing.assert_allclose(
        found["ending_sum"][1:], expected["ending_sum"], atol=1e-5
    )


class Deaf(Qwen2ForCausalLM):
    """Takes positions and does not listen."""

    def forward(self, input_ids, position_ids=None, **options):
        return super().forward(input_ids, **options)


def make_deaf():
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=VOCABULARY + 1, **GROUPED)
    config.initializer_range = 0.3
    return Deaf(config).eval()


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ((MistralConfig, WINDOW), "a sliding window of 16 positions"),
        ((Gemma2Config, {**GROUPED, "head_dim": 8}), "asks for softcap"),
        ((Lfm2Config, CONV), "layers of the type conv"),
        ((BloomConfig, BLOOM), "attention interface"),
        ((MambaConfig, MAMBA), "attention interface"),
        (None, "other logits behind another ending"),
    ],
)
def test_models_that_cannot_share_are_refused(family, reason):
    model = make_model(*family) if family else make_deaf()
    before = model.config._attn_implementation
    pairs = [
        (prompt, [*ending] * 3)
        for prompt, ending in make_pairs(3, 2)
        if len(prompt)
    ]
    with pytest.raises(ValueError, match=reason) as caught:
        make_scorer(model).score(pairs)
    assert "share_prompts: False" in str(caught.value)
    assert model.config._attn_implementation == before
    found = one_by_one(model, pairs)
    expected = [naive(model, *pair)[0] for pair in pairs]
    assert found["whole_sum"] == pytest.approx(expected, abs=1e-4)
    # Nothing to share: nothing to refuse.
    single = [([], [1, 2]), ([], [3]), ([1], [2])]
    make_scorer(model).score(single)


def test_rows_do_not_depend_on_the_order():
    pairs = make_pairs(5, 4, longest=9)
    ids = [np.array([9, *prompt, *ending]) for prompt, ending in pairs]
    lengths = [1 + len(prompt) for prompt, _ in pairs]
    rows, alone = make_rows(ids, lengths, 40)
    members = [index for row in rows for same in row.members for index in same]
    assert sorted(members + alone) == list(range(len(ids)))
    for row in rows:
        assert row.size <= 40
        for ending, same in zip(row.endings, row.members, strict=True):
            for index in same:
                whole = np.concatenate([row.prompt, ending])
                assert (whole == ids[index]).all()
    order = np.random.default_rng(0).permutation(len(ids))
    turned = ([values[index] for index in order] for values in (ids, lengths))
    again, _ = make_rows(*turned, 40)
    one, other = (
        [[part.tobytes() for part in (r.prompt, *r.endings)] for r in found]
        for found in (rows, again)
    )
    assert one == other
