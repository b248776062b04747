"""Decoder LMs over units, made by Hugging Face transformers.

The symbols of a model are the units, the story boundary, then the language
tags: ``vocabulary_size + 1 + len(language_tags)`` embeddings. A model starts
from its configuration, or warm from a text LM whose body is kept and whose
embeddings are new (TWIST: Hassid et al., NeurIPS 2023).
"""

import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from speechbrain_slm.utils.numbers import check_number
from speechbrain_slm.utils.pretrained import load_whole, said_by
from speechbrain_slm.utils.store_format import read_info

# What follows from the units, hence is no value of a YAML.
DERIVED = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")


def decoder_lm(
    model_type: str,
    vocabulary_size: int | None = None,
    language_tags: Sequence[str] = (),
    units_folder: str | Path | None = None,
    warm_start: str | Path | None = None,
    embedding_std: float | None = None,
    activation_checkpointing: bool = False,
    from_scratch: dict[str, Any] | None = None,
    **config: Any,
) -> PreTrainedModel:
    """Make a decoder LM over units, in fp32 and in training mode.

    Arguments
    ---------
    model_type : A decoder of transformers: ``"qwen2"``, ``"llama"``, ...
    vocabulary_size : Number of units; by default that of ``units_folder``.
    language_tags : Languages that get an embedding of their own.
    warm_start : A text LM (hub name or folder), of which the body is taken.
    embedding_std
        Of the new embeddings and of an untied head; by default that of the
        text LM's own, or what the configuration says.
    activation_checkpointing : Saves memory for a second forward pass.
    from_scratch : Further values where there is no warm start: the shape.
    **config
        Values of the model's configuration class. A warm start refuses those
        that its weights do not fit; it takes the others (dropout, ...).

    Example
    -------
    >>> model = decoder_lm(
    ...     "qwen2", 9, hidden_size=8, intermediate_size=8,
    ...     num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
    ... )
    >>> model.get_input_embeddings().num_embeddings
    10
    """
    _check_keys(model_type, config | (from_scratch or {}))
    values = config | _symbols(vocabulary_size, language_tags, units_folder)
    if warm_start is None:
        values = (from_scratch or {}) | values
        settings = AutoConfig.for_model(model_type, **values)
    else:
        text_config = _read_config(warm_start, model_type)
        _check_shapes(text_config, config, warm_start)
        settings = _replace(text_config, **values)
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    stds = [] if embedding_std is None else [embedding_std] * 2
    if warm_start is not None:
        text = _load_body(model, warm_start)
        stds = stds or [layer.weight.std().item() for layer in _ends(text)]
    # The head first: where it is tied, the embeddings' scale counts.
    for layer, std in zip(_ends(model)[::-1], stds[::-1], strict=False):
        torch.nn.init.normal_(layer.weight, std=std)
    if activation_checkpointing:
        # Reentrant: no gradient where a layer's inputs have none.
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _symbols(
    vocabulary_size: int | None,
    language_tags: Sequence[str],
    units_folder: str | Path | None,
) -> dict[str, int | None]:
    """Return what follows from the units, as a configuration has it."""
    tags = list(language_tags)
    if len(set(tags)) < len(tags):
        raise ValueError(f"language_tags is {tags}; expected each one once")
    if vocabulary_size is None:
        if units_folder is None:
            raise ValueError(
                "vocabulary_size is null, and no units_folder is given to "
                "take it from; set one of them"
            )
        tokenizer = read_info(Path(units_folder) / "train")["tokenizer"]
        vocabulary_size = tokenizer["vocabulary_size"]
    check_number("vocabulary_size", vocabulary_size, at_least=1, whole=True)
    # A story begins with the boundary, and the next one's ends it.
    boundary = vocabulary_size
    size = vocabulary_size + 1 + len(tags)
    return dict(zip(DERIVED, (size, boundary, boundary, None), strict=True))


def _check_keys(model_type: str, config: dict) -> None:
    known = AutoConfig.for_model(model_type)
    if derived := ", ".join(key for key in config if key in DERIVED):
        raise ValueError(
            f"{derived} follow(s) from vocabulary_size and language_tags; "
            "remove it"
        )
    # transformers would store it, and nothing would read it.
    if unknown := ", ".join(key for key in config if not hasattr(known, key)):
        raise ValueError(
            f"A {model_type} configuration has no {unknown}; see "
            f"transformers.{type(known).__name__}"
        )


def _read_config(warm_start: str | Path, model_type: str) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(warm_start, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"warm_start: no text LM '{warm_start}' can be read "
            f"({said_by(error)}). Expected a folder, or a name on the Hugging "
            "Face hub and access to it; null starts from random weights."
        ) from error
    if config.model_type != model_type:
        raise ValueError(
            f"warm_start: {warm_start} is a {config.model_type}, while "
            f"model_type is {model_type}; change one of them"
        )
    return config


def _replace(config: PretrainedConfig, **values: Any) -> PretrainedConfig:
    # By from_dict: setattr would leave what follows from a value (the types
    # of the layers follow from their number) as it was.
    return type(config).from_dict({**config.to_dict(), **values})


def _shapes(config: PretrainedConfig) -> dict[str, torch.Size]:
    # On "meta" a model of any size takes no memory and no time.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    return {name: weight.shape for name, weight in model.named_parameters()}


def _check_shapes(
    text_config: PretrainedConfig, config: dict, warm_start: str | Path
) -> None:
    """Refuse values that the weights of a text LM do not fit."""
    expected: dict | None = None
    for key, value in config.items():
        own = getattr(text_config, key)
        # Tying concerns the head alone, which is new in any case.
        if own == value or key == "tie_word_embeddings":
            continue
        expected, fits = expected or _shapes(text_config), False
        # A value that makes no model at all does not fit, either.
        with contextlib.suppress(Exception):
            fits = _shapes(_replace(text_config, **{key: value})) == expected
        if not fits:
            raise ValueError(
                f"{key} is {value}, but {warm_start} has {own}; set it to "
                f"{own}, or warm_start to null"
            )


def _ends(model: PreTrainedModel) -> tuple[Any, Any]:
    return model.get_input_embeddings(), model.get_output_embeddings()


def _load_body(
    model: PreTrainedModel, warm_start: str | Path
) -> PreTrainedModel:
    """Copy all weights of a text LM but those of its ends; return it."""
    text = load_whole(AutoModelForCausalLM, warm_start, dtype=torch.float32)
    ends = {id(p) for layer in _ends(model) for p in layer.parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if id(parameter) not in ends:
                parameter.copy_(text.get_parameter(name))
    return text


def flops_per_token(model: PreTrainedModel, row_length: int) -> float | None:
    """Count the operations that training on one token costs.

    ``6 N + 12 L H D T``, the count of PaLM (Chowdhery et al., 2022,
    appendix B), by which the literature reports utilisation: N weights that
    multiply activations (the output head included, the input embeddings
    not), and attention over rows of T tokens in L layers of H heads of D
    dimensions, neither halved for causality nor lessened where attention is
    blocked. None where the configuration has no heads or layers to count.
    """
    config = model.config
    layers = getattr(config, "num_hidden_layers", None)
    heads = getattr(config, "num_attention_heads", None)
    if not (layers and heads):
        return None
    weights = sum(
        parameter.numel()
        for module in model.modules()
        if not isinstance(module, torch.nn.Embedding)
        for parameter in module.parameters(recurse=False)
        if parameter.dim() > 1
    )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 6.0 * weights + 12.0 * layers * heads * head_dim * row_length
