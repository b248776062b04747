"""Decoder LMs over units, made by Hugging Face transformers."""

from transformers import AutoConfig, AutoModelForCausalLM


def decoder_lm(model_type, vocabulary_size, **config):
    """Make a randomly initialised decoder LM.

    Arguments
    ---------
    model_type : str
        A decoder that transformers knows: ``"qwen2"``, ``"llama"``, ...
    vocabulary_size : int
        Number of units; the story boundary gets one embedding more.
    **config
        Passed to the model's configuration class.

    Returns
    -------
    transformers.PreTrainedModel
        In fp32, with ``vocabulary_size + 1`` embeddings.

    Raises
    ------
    ValueError
        If the configuration class does not know a key (it would otherwise be
        stored and ignored).

    Example
    -------
    >>> model = decoder_lm(
    ...     "qwen2", 9, hidden_size=8, intermediate_size=8,
    ...     num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
    ... )
    >>> model.get_input_embeddings().num_embeddings
    10
    """
    known = AutoConfig.for_model(model_type)
    unknown = [key for key in config if not hasattr(known, key)]
    if unknown:
        raise ValueError(
            f"A {model_type} configuration has no {', '.join(unknown)}; see "
            f"transformers.{type(known).__name__}"
        )
    boundary = vocabulary_size
    settings = AutoConfig.for_model(
        model_type,
        vocab_size=vocabulary_size + 1,
        bos_token_id=boundary,
        eos_token_id=boundary,
        pad_token_id=None,
        **config,
    )
    return AutoModelForCausalLM.from_config(settings)
