import json
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from transformers import AutoConfig, AutoModelForCausalLM, MambaConfig

from speechbrain_slm.models.decoder import decoder_lm, flops_per_token

LM_YAML = Path(__file__).parents[3] / "hparams/lm"
TEXT_SYMBOLS = 64
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2}
FAMILIES = ("qwen2", "llama")


def text_lm(folder, model_type, tied=True):
    """Save a text LM of random weights, as the hub would hold it."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=TEXT_SYMBOLS,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=[2, 3],
        pad_token_id=0,
        **SHAPE,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1 if tied else 0.25)
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def ends(model):
    layers = model.get_input_embeddings(), model.get_output_embeddings()
    return [layer.weight for layer in layers]


def body(model):
    ends, state = ("embed_tokens.weight", "lm_head.weight"), model.state_dict()
    return {n: weight for n, weight in state.items() if not n.endswith(ends)}


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("text_tied", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_a_warm_start_keeps_the_body_alone(
    tmp_path, model_type, text_tied, tied
):
    text = text_lm(tmp_path / "text", model_type, text_tied)
    # As many symbols as the text LM: nothing but us replaces the rows.
    model = decoder_lm(
        model_type,
        TEXT_SYMBOLS - 3,
        language_tags=["en", "fr"],
        warm_start=tmp_path / "text",
        tie_word_embeddings=tied,
        **SHAPE,
    )
    assert model.dtype == torch.float32
    assert body(model).keys() == body(text).keys() != set()
    for name, weight in body(text).items():
        assert torch.equal(body(model)[name], weight), name
    for new, old in zip(ends(model), ends(text), strict=True):
        assert new.shape == (TEXT_SYMBOLS, 32)
        assert (torch.cdist(new, old) > 0.1).all()
    embeddings, head = ends(model)
    assert (embeddings is head) == tied
    text_embeddings, text_head = ends(text)
    same = pytest.approx(text_embeddings.std().item(), rel=0.05)
    assert embeddings.std().item() == same
    if not tied:
        assert not torch.equal(embeddings, head)
        same = pytest.approx(text_head.std().item(), rel=0.05)
        assert head.std().item() == same
    boundary = TEXT_SYMBOLS - 3
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id) == (boundary,) * 2
        assert config.pad_token_id is None

    # Tied or not, it survives being saved, and a step of training.
    loss = model(torch.arange(9)[None], labels=torch.arange(9)[None]).loss
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert (ends(loaded)[0] is ends(loaded)[1]) == tied
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("warm", [True, False])
def test_the_initial_scale_is_as_asked(tmp_path, tied, warm):
    text_lm(tmp_path, "qwen2")
    model = decoder_lm(
        "qwen2",
        500,
        warm_start=tmp_path if warm else None,
        embedding_std=0.5,
        tie_word_embeddings=tied,
        **SHAPE,
    )
    for weight in ends(model):
        assert weight.std().item() == pytest.approx(0.5, rel=0.05)
        assert weight.mean().item() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("warm", [True, False])
def test_the_seed_decides(tmp_path, warm):
    text_lm(tmp_path, "llama")
    options = {"warm_start": tmp_path if warm else None, "embedding_std": 0.1}
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(decoder_lm("llama", 20, **options, **SHAPE).state_dict())
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "model.embed_tokens.weight"
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("hidden_size", 64), ("hidden_size", 30), ("intermediate_size", 64)),
        *(("num_hidden_layers", 3), ("num_hidden_layers", 1)),
        *(("num_attention_heads", 8), ("num_key_value_heads", 4)),
        ("num_key_value_heads", 1),
    ],
)
def test_another_shape_is_refused(tmp_path, model_type, key, value):
    text_lm(tmp_path, model_type)
    with pytest.raises(
        ValueError, match=rf"^{key} is {value}, but .* has {SHAPE[key]}; set"
    ):
        decoder_lm(model_type, 20, warm_start=tmp_path, **{**SHAPE, key: value})


def test_what_fits_the_weights_is_applied(tmp_path):
    text_lm(tmp_path, "llama")
    rope = {"rope_type": "default", "rope_theta": 77.0}
    values = {"attention_dropout": 0.5, "max_position_embeddings": 99}
    values["rope_parameters"] = rope
    model = decoder_lm("llama", 20, warm_start=tmp_path, **SHAPE, **values)
    for key, value in values.items():
        assert getattr(model.config, key) == value
    plain = decoder_lm("llama", 20, warm_start=tmp_path, **SHAPE)
    rotary = [m.model.rotary_emb.inv_freq for m in (model, plain)]
    assert not torch.equal(*rotary)
    torch.testing.assert_close(rotary[0][1], torch.tensor(77.0) ** -0.25)
    # Dropout acts in training: two passes differ.
    row = torch.arange(9)[None]
    assert not torch.equal(model(row).logits, model(row).logits)


def test_activation_checkpointing_recomputes_and_changes_no_gradient():
    gradients, calls = [], []
    for checkpointing in (True, False):
        torch.manual_seed(0)
        model = decoder_lm(
            "qwen2", 20, activation_checkpointing=checkpointing, **SHAPE
        )
        mlp = model.model.layers[0].mlp
        mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        model(torch.arange(9)[None]).logits.sum().backward()
        gradients.append(mlp.up_proj.weight.grad)
    assert len(calls) == 2 + 1
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("model_type", "values", "message"),
    [
        ("qwen2", {"hiden_size": 8}, "has no hiden_size"),
        ("qwen2", {"vocab_size": 8}, "vocab_size follow"),
        ("qwen2", {"language_tags": ["en", "en"]}, "each one once"),
        ("qwen2", {"warm_start": "missing"}, "warm_start: no text LM 'missing"),
        ("llama", {"warm_start": "."}, "is a qwen2, while model_type is ll"),
        *(
            ("qwen2", {"vocabulary_size": size}, "vocabulary_size is .* 1")
            for size in (0, -3, 2.5, "30", True)
        ),
    ],
)
def test_bad_values_are_refused(
    tmp_path, monkeypatch, model_type, values, message
):
    text_lm(tmp_path, "qwen2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        decoder_lm(model_type, **{"vocabulary_size": 20, **SHAPE, **values})


def test_a_torn_text_lm_is_refused(tmp_path):
    model = text_lm(tmp_path, "qwen2")
    weights = model.state_dict()
    del weights["model.layers.1.mlp.up_proj.weight"]
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"weights lack 1 .*model\.layers\.1"):
        decoder_lm("qwen2", 20, warm_start=tmp_path, **SHAPE)


def from_yaml(name, **values):
    values = {"vocabulary_size": 2048, **values}
    return load_hyperpyyaml((LM_YAML / name).read_text(), values)["model"]


# With E = 2048 units of Mimi and the boundary, width d, feed-forward f, L
# layers, key-value width k: E d + L (2 d d + 2 d k + 3 d f + 2 d) + d, and in
# Qwen2 L (d + 2 k) of biases.
SIZES = {
    "qwen2_0.5b.yaml": 2049 * 896
    + 24 * (2 * 896**2 + 2 * 896 * 128 + 3 * 896 * 4864 + 2 * 896)
    + 896
    + 24 * (896 + 2 * 128),
    "llama3.2_1b.yaml": 2049 * 2048
    + 16 * (2 * 2048**2 + 2 * 2048 * 512 + 3 * 2048 * 8192 + 2 * 2048)
    + 2048,
}


@pytest.mark.parametrize("name", SIZES)
def test_full_size_yamls_have_the_exact_size(name):
    assert list(SIZES.values()) == [359_734_016, 977_342_464]
    with torch.device("meta"):
        model = from_yaml(name, warm_start=None)
        tagged = from_yaml(name, warm_start=None, language_tags=["en", "fr"])
        untied = from_yaml(name, warm_start=None, tied=False)
    size, width = model.num_parameters(), model.config.hidden_size
    assert size == sum(p.numel() for p in model.parameters()) == SIZES[name]
    assert tagged.num_parameters() == size + 2 * width
    assert untied.num_parameters() == size + 2049 * width


SCALING = {"rope_type": "llama3", "original_max_position_embeddings": 8192}
SCALING |= {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("qwen2_0.5b.yaml", {"rope_theta": 1e6, "use_sliding_window": False}),
        ("llama3.2_1b.yaml", {"rope_theta": 5e5, "rope_scaling": SCALING}),
    ],
)
def test_full_size_yamls_warm_start_from_what_the_hub_holds(
    tmp_path, name, hub
):
    """At a small width; the hub's config.json is of transformers 4."""
    small = {"hidden_size": 64, "intermediate_size": 48}
    small |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    small["num_key_value_heads"] = 2
    if name.startswith("llama"):
        small["head_dim"] = 16
    own = {"warm_start": None, "from_scratch": small}
    text = from_yaml(name, vocabulary_size=99, **own)
    text.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    path.write_text(json.dumps({**config, **hub}))
    # The shape is the text LM's, whatever a random start would have.
    model = from_yaml(name, warm_start=str(tmp_path))
    assert torch.equal(
        model.model.rotary_emb.inv_freq, text.model.rotary_emb.inv_freq
    )
    assert model.config.rope_parameters == text.config.rope_parameters
    for key, weight in body(text).items():
        assert torch.equal(body(model)[key], weight), key


def test_the_vocabulary_is_that_of_the_units(store_folder):
    values = {"vocabulary_size": None, "units_folder": str(store_folder.parent)}
    model = from_yaml("qwen2_mini.yaml", **values)
    assert model.get_input_embeddings().num_embeddings == 31
    with pytest.raises(FileNotFoundError, match="is not a complete unit store"):
        from_yaml("qwen2_mini.yaml", **{**values, "units_folder": "nowhere"})
    with pytest.raises(ValueError, match="null, and no units_folder"):
        from_yaml("qwen2_mini.yaml", vocabulary_size=None)


def test_mini_yaml_passes_its_values_on():
    values = {"activation_checkpointing": True, "embedding_std": 0.3}
    values |= {"language_tags": ["en"], "tied": False, "dropout": 0.25}
    model = from_yaml("qwen2_mini.yaml", **values)
    assert model.get_input_embeddings().num_embeddings == 2050
    assert model.is_gradient_checkpointing
    assert ends(model)[1].std().item() == pytest.approx(0.3, rel=0.05)
    assert model.config.attention_dropout == 0.25


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "head_dim"), [("qwen2", 16), ("llama", 8)])
def test_flops_equal_a_count_by_hand(tied, kind, head_dim):
    shape = {} if kind == "qwen2" else {"head_dim": head_dim}
    with torch.device("meta"):
        shape |= {**SHAPE, "hidden_size": 64, "intermediate_size": 96}
        model = decoder_lm(kind, 99, tie_word_embeddings=tied, **shape)
    width = 4 * head_dim
    # q and o; k and v; gate, up and down. Biases and norms multiply nothing.
    layer = 2 * 64 * width + 2 * 64 * width // 2 + 3 * 64 * 96
    head = 100 * 64
    # Scores and their sums over T positions: 2 * 2 * width * T, thrice.
    attention = 2 * (3 * 2 * 2 * width * 256)
    expected = 3 * 2 * (2 * layer + head) + attention
    assert flops_per_token(model, 256) == expected


def test_a_model_without_heads_is_not_counted():
    shape = {"hidden_size": 8, "state_size": 2, "num_hidden_layers": 1}
    config = MambaConfig(vocab_size=9, **shape)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert flops_per_token(model, 16) is None
