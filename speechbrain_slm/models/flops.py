"""Floating-point operations of training, for model FLOPs utilisation."""

from torch import nn
from transformers import PreTrainedModel


def flops_per_token(model: PreTrainedModel, row_length: int) -> float | None:
    """Count what one token costs, forward and backward.

    ``6 N + 12 L H D T``, the count of PaLM (Chowdhery et al., 2022,
    appendix B), by which the literature reports utilisation: N weights that
    multiply activations (the output head included, the input embeddings
    not), and attention over rows of T tokens in L layers of H heads of D
    dimensions, neither halved for causality nor lessened where attention is
    blocked.

    None where the configuration has no heads or layers of attention to count.

    Example
    -------
    >>> from speechbrain_slm.models.decoder import decoder_lm
    >>> model = decoder_lm(
    ...     "qwen2", 9, hidden_size=8, intermediate_size=8,
    ...     num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
    ... )
    >>> weights = 2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 8 + 10 * 8
    >>> flops_per_token(model, 16) == 6 * weights + 12 * 8 * 16
    True
    """
    config = model.config
    layers = getattr(config, "num_hidden_layers", None)
    heads = getattr(config, "num_attention_heads", None)
    if not (layers and heads):
        return None
    weights = sum(
        parameter.numel()
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
        if parameter.dim() > 1
    )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = layers * heads * head_dim * row_length
    return 6.0 * weights + 12.0 * attention
