import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

from speechbrain_slm.models.decoder import decoder_lm
from speechbrain_slm.models.flops import flops_per_token


@pytest.mark.parametrize("tied", [True, False])
def test_equals_a_count_by_hand(tied):
    with torch.device("meta"):
        model = decoder_lm(
            "qwen2",
            99,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
        )
    # q and o; k and v; gate, up and down. Biases and norms multiply nothing.
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96
    head = 100 * 64
    # Scores and their sums over T positions: 2 * 2 * width * T, thrice.
    attention = 3 * (3 * 2 * 2 * 64 * 256)
    expected = 3 * 2 * (3 * layer + head) + attention
    assert flops_per_token(model, 256) == expected


def test_counts_a_head_dim_of_its_own():
    shape = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    with torch.device("meta"):
        model = decoder_lm("llama", 99, head_dim=8, **shape)
    weights = 4 * 64 * 32 + 3 * 64 * 96 + 100 * 64
    assert flops_per_token(model, 10) == 6 * weights + 12 * 4 * 8 * 10


def test_a_model_without_heads_is_not_counted():
    config = MambaConfig(
        vocab_size=9, hidden_size=8, state_size=2, num_hidden_layers=1
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert flops_per_token(model, 16) is None
