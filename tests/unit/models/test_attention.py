import itertools

import pytest
import torch
from cloze_example import export
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from speechbrain_slm.models import attention, cuda_attention
from speechbrain_slm.models.attention import (
    block_attention,
    blocked_inputs,
    open_attention,
    open_inputs,
)
from speechbrain_slm.models.decoder import decoder_lm
from speechbrain_slm.models.export import load_speech_lm

BOUNDARY = 20
FAMILIES = ("qwen2", "llama", "gpt_neox")


def tiny(model_type="qwen2", layers=2, **config):
    torch.manual_seed(0)
    if model_type != "gpt_neox":
        config["num_key_value_heads"] = 2
    model = decoder_lm(
        model_type,
        BOUNDARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
        **config,
    )
    block_attention(model)
    return model


def some_rows():
    """Make rows of stories, the end of one, and padding."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, BOUNDARY, (3, 40), generator=generator)
    rows[0, [0, 13, 14 + 8]] = BOUNDARY
    rows[1, [7, 25]] = BOUNDARY
    rows[2, 30:] = BOUNDARY
    return rows


def documents(rows):
    """Cut rows into documents by the definition, one position at a time."""
    found = []
    for number, row in enumerate(rows.tolist()):
        for place, symbol in enumerate(row):
            opens = symbol == BOUNDARY and row[place - 1] != BOUNDARY
            if place == 0 or opens:
                found.append((number, place, place))
            begun = found.pop()
            found.append((*begun[:2], place + 1))
    return found


def test_inputs_follow_the_definition():
    rows = some_rows()
    inputs = blocked_inputs(rows, BOUNDARY)
    expected = documents(rows)
    bounds = inputs["cu_seq_lens_q"].tolist()
    assert len(expected) == 8
    assert bounds[:9] == [0, *(row * 40 + end for row, _, end in expected)]
    # The same shape for any number of documents up to 64.
    assert bounds[9:] == [120] * 56
    for row, begin, end in expected:
        positions = inputs["position_ids"][row, begin:end].tolist()
        assert positions == list(range(end - begin))
    same = blocked_inputs(rows.numpy(), BOUNDARY)
    assert torch.equal(same["position_ids"], inputs["position_ids"])


@pytest.mark.parametrize("model_type", FAMILIES)
def test_equals_unpacked_passes(model_type):
    model = tiny(model_type).eval()
    rows = some_rows()
    with torch.no_grad():
        packed = model(rows, **blocked_inputs(rows, BOUNDARY)).logits
        for row, begin, end in documents(rows):
            alone = model(rows[row : row + 1, begin:end]).logits[0]
            torch.testing.assert_close(
                packed[row, begin:end], alone, atol=1e-5, rtol=0
            )


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_gradient_crosses_stories(model_type, checkpointing):
    model = tiny(model_type, activation_checkpointing=checkpointing)
    rows = some_rows()
    inputs = blocked_inputs(rows, BOUNDARY)
    for row, begin, end in documents(rows):
        embedded = model.get_input_embeddings()(rows).detach()
        embedded.requires_grad_()
        logits = model(inputs_embeds=embedded, **inputs).logits
        logits[row, begin:end].square().sum().backward()
        inside = torch.zeros(rows.shape, dtype=torch.bool)
        inside[row, begin:end] = True
        assert (embedded.grad[~inside] == 0).all()
        assert (embedded.grad[inside].abs().amax(dim=-1) > 0).all()


def test_dropout_acts_and_follows_the_seed():
    model, rows = tiny(attention_dropout=0.5), some_rows()
    inputs = blocked_inputs(rows, BOUNDARY)
    torch.manual_seed(3)
    first, second = (model(rows, **inputs).logits for _ in range(2))
    torch.manual_seed(3)
    again = model(rows, **inputs).logits
    assert torch.equal(first, again)
    assert not torch.allclose(first, second, atol=1e-3)


def test_autocast_reaches_the_kernel():
    model, rows = tiny().eval(), some_rows()
    inputs = blocked_inputs(rows, BOUNDARY)
    with torch.no_grad():
        exact = model(rows, **inputs).logits
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(rows, **inputs).logits
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()


def test_without_documents_it_is_plain_attention():
    blocked, plain = tiny().eval(), tiny().eval()
    plain.set_attn_implementation("sdpa")
    rows = some_rows()
    mask = torch.ones_like(rows)
    mask[0, :9] = 0
    with torch.no_grad():
        for options in ({}, {"attention_mask": mask}):
            expected = plain(rows, **options).logits[mask.bool()]
            found = blocked(rows, **options).logits[mask.bool()]
            torch.testing.assert_close(found, expected)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    for cache in (True, False):
        options |= {"attention_mask": mask, "use_cache": cache}
        found = [m.generate(rows, **options) for m in (blocked, plain)]
        assert torch.equal(*found)


GROUPED = {"num_key_value_heads": 2}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0}


@pytest.mark.parametrize(
    ("model_type", "able", "config"),
    [("qwen2", True, GROUPED), ("opt", True, OPT), ("doge", False, GROUPED)],
)
def test_open_attention_is_the_default_one(model_type, able, config):
    """OPT takes positions from a mask, Doge makes one in each layer."""
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4}
    model = decoder_lm(model_type, BOUNDARY, hidden_size=32, **shape, **config)
    rows = some_rows()
    with torch.no_grad():
        expected = model.eval()(rows).logits
        assert open_attention(model) == able
        inputs = open_inputs(rows.shape[1]) if able else {}
        torch.testing.assert_close(model(rows, **inputs).logits, expected)
        if not able:
            block_attention(model)
            with pytest.raises(ValueError, match="DogeAttention makes a mask"):
                model(rows, **blocked_inputs(rows, BOUNDARY))


def test_an_export_does_not_know_of_it(tmp_path):
    model = tiny()
    export(tmp_path / "model", model, size=BOUNDARY)
    assert "speechbrain_slm" not in (tmp_path / "model/config.json").read_text()
    loaded, _ = load_speech_lm(tmp_path / "model")
    assert loaded.config._attn_implementation == "sdpa"
    rows = some_rows()[:, 1:7]
    torch.testing.assert_close(loaded(rows).logits, model.eval()(rows).logits)


def test_a_model_that_goes_around_it_shows_nan():
    model, rows = tiny(), some_rows()
    model.set_attn_implementation("sdpa")
    logits = model(rows, **blocked_inputs(rows, BOUNDARY)).logits
    assert logits.isnan().all()


def test_what_it_lacks_is_refused():
    rows = some_rows()
    model = tiny(use_sliding_window=True, sliding_window=5, max_window_layers=0)
    with pytest.raises(ValueError, match=r"sliding window.*attention to open"):
        model(rows, **blocked_inputs(rows, BOUNDARY))
    old = type("Old", (), {"_supports_attention_backend": False})()
    with pytest.raises(ValueError, match=r"Old .*attention to open"):
        block_attention(old)


# The kernels of the GPU, as far as a CPU can go: our part is what they get.


def heads(rows, number, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = *rows.shape, number, 16
    return torch.randn(shape, generator=generator).transpose(1, 2)


@pytest.mark.parametrize("key_heads", [2, 4])
@pytest.mark.parametrize("scaling", [None, 0.1])
@pytest.mark.parametrize("kernel", ["flex", "varlen", "varlen 2.10", "early"])
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_kernels_get_the_same_documents(
    monkeypatch, kernel, key_heads, scaling
):
    rows = some_rows()
    inputs = blocked_inputs(rows, BOUNDARY)
    bounds = inputs["cu_seq_lens_q"]
    tensors = [heads(rows, n, n) for n in (4, key_heads, key_heads)]
    expected = attention.each_document(*tensors, bounds, scaling, 0.0)
    assert expected.shape == (3, 40, 4, 16)
    function = {
        "varlen": varlen_by_definition,
        "varlen 2.10": varlen_of_old,
        # Before 2.10; and where there is none at all, as up to 2.9.
        "early": lambda query, key, value, cu_q, cu_k, max_q, max_k: None,
    }.get(kernel)
    known = cuda_attention.varlen_options(function)
    assert (known is None) == (kernel in ("flex", "early"))
    monkeypatch.setattr(cuda_attention, "varlen_attn", function)
    monkeypatch.setattr(cuda_attention, "VARLEN", known)
    monkeypatch.setattr(cuda_attention, "compiled_flex", flex_attention)
    if known is None:
        found = cuda_attention.attend_on_cuda(*tensors, bounds, scaling)
    else:
        found = cuda_attention.varlen_documents(*tensors, bounds, scaling)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def varlen_by_definition(
    query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size,
    enable_gqa=False,
):  # fmt: skip
    """Do what PyTorch documents of ``varlen_attn``, in loops."""
    assert query.shape[1] == key.shape[1] or enable_gqa
    assert window_size == (-1, 0)
    assert cu_q.dtype == torch.int32
    assert max_q >= cu_q.diff().max()
    groups = query.shape[1] // key.shape[1]
    out = torch.empty_like(query)
    for begin, end in itertools.pairwise(cu_q):
        for head in range(query.shape[1]):
            other = head // groups
            tensors = query[:, head], key[:, other], value[:, other]
            part = [tensor[begin:end] for tensor in tensors]
            out[begin:end, head] = scaled_dot_product_attention(
                *part, is_causal=True, scale=scale
            )
    return out


def varlen_of_old(
    query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size
):
    """Do what PyTorch 2.10 and 2.11 do: grouped heads need no word."""
    return varlen_by_definition(
        query, key, value, cu_q, cu_k, max_q, max_k, scale=scale,
        window_size=window_size, enable_gqa=True,
    )  # fmt: skip


def test_a_kernel_that_is_absent_is_named(monkeypatch):
    rows = some_rows()
    bounds = blocked_inputs(rows, BOUNDARY)["cu_seq_lens_q"]
    tensors = [heads(rows, 4, seed) for seed in range(3)]
    monkeypatch.setattr(cuda_attention, "TRITON", False)
    for known, kind in ((None, torch.bfloat16), (set(), torch.float32)):
        monkeypatch.setattr(cuda_attention, "VARLEN", known)
        given = [tensor.to(kind) for tensor in tensors]
        with pytest.raises(
            RuntimeError, match=rf"no kernel for {kind}.*flex_attention needs"
        ):
            cuda_attention.attend_on_cuda(*given, bounds, None)


@pytest.mark.parametrize(
    ("built", "card", "expected"),
    [(True, (9, 0), True), (True, (7, 5), False), (False, (9, 0), False)],
)
def test_old_cards_have_no_flash_attention(monkeypatch, built, card, expected):
    monkeypatch.setattr(
        torch.backends.cuda, "is_flash_attention_available", lambda: built
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: card)
    assert cuda_attention.has_flash() == expected
