import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

from speechbrain_slm.models.decoder import decoder_lm, flops_per_token


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "head_dim"), [("qwen2", 16), ("llama", 8)])
def test_equals_a_count_by_hand(tied, kind, head_dim):
    shape = {} if kind == "qwen2" else {"head_dim": head_dim}
    with torch.device("meta"):
        model = decoder_lm(
            kind,
            99,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
            **shape,
        )
    width = 4 * head_dim
    # q and o; k and v; gate, up and down. Biases and norms multiply nothing.
    layer = 2 * 64 * width + 2 * 64 * width // 2 + 3 * 64 * 96
    head = 100 * 64
    # Scores and their sums over T positions: 2 * 2 * width * T, thrice.
    attention = 3 * (3 * 2 * 2 * width * 256)
    expected = 3 * 2 * (3 * layer + head) + attention
    assert flops_per_token(model, 256) == expected


def test_a_model_without_heads_is_not_counted():
    config = MambaConfig(
        vocab_size=9, hidden_size=8, state_size=2, num_hidden_layers=1
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert flops_per_token(model, 16) is None
