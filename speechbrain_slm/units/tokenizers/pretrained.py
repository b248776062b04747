"""Pretrained models by hub name or local folder, and how they compute.

A model is loaded when it is first needed, so that a YAML file can be read
without it. Nothing in its files is executed: weights are safetensors, or are
read by ``torch.load`` with ``weights_only``, and no code of a hub repository
is run.
"""

import contextlib
import functools
import importlib
from collections.abc import Sequence
from pathlib import Path

import torch

from speechbrain_slm.utils.hashing import tensors_identity
from speechbrain_slm.utils.pretrained import load_whole, said_by

PRECISIONS = ("fp32", "bf16")
# A vector for masked training, which some published checkpoints lack.
UNUSED = r"masked_spec_embed$"


def require(module: str, package: str, purpose: str):
    """Import a module, or say how to install it.

    Arguments
    ---------
    package : What ``pip install`` takes.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If it is not installed.

    Example
    -------
    >>> require("no_such_module", "no-such-package", "This example")
    Traceback (most recent call last):
    ...
    ImportError: This example needs no_such_module (No module named
    'no_such_module'). Install it with: pip install no-such-package
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {module} ({error}). Install it with: pip install "
            f"{package}"
        ) from error


def _missing(source, what, error):
    if Path(source).exists():
        found = f"{source}: no {what} can be read from this folder"
    else:
        found = (
            f"{source} is neither a folder nor a hub model whose {what} is "
            "downloaded or can be"
        )
    return FileNotFoundError(
        f"{found} ({said_by(error)}). Where there is a "
        f"network, run: hf download {source} --local-dir <folder>. Then set "
        "source to that folder; HF_HUB_OFFLINE=1 keeps later runs off the "
        "network."
    )


def load_config(source: str, model_types: Sequence[str]):
    """Read a model's configuration.

    Arguments
    ---------
    source : A hub name or a local folder.

    Returns
    -------
    transformers.PretrainedConfig

    Raises
    ------
    FileNotFoundError
        If there is none: the message says what to fetch.
    ValueError
        If it is a model of another type.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _missing(source, "config.json", error) from error
    if config.model_type not in model_types:
        raise ValueError(
            f"{source} is a {config.model_type} model; expected "
            f"{' or '.join(model_types)}"
        )
    return config


def load_model(source: str, config):
    """Load a model for inference, in float32.

    Arguments
    ---------
    source : A hub name or a local folder.
    config : transformers.PretrainedConfig
        What :func:`load_config` returned; may ask for fewer layers.

    Returns
    -------
    transformers.PreTrainedModel
        In eval mode, without gradients.

    Raises
    ------
    FileNotFoundError
        If there are no weights: the message says what to fetch.
    ValueError
        If the weights are damaged, or lack some of the model's: those would
        stay random.
    """
    from transformers import AutoModel

    try:
        model = load_whole(
            AutoModel,
            source,
            absent=UNUSED,
            # Its head, and the layers above the one that is asked for.
            surplus=".",
            config=config,
            dtype=torch.float32,
        )
    except OSError as error:
        raise _missing(source, "weights", error) from error
    return model.eval().requires_grad_(False)


def preprocessor_settings(source: str) -> dict:
    """Read what a model's preprocessor does to waveforms.

    Arguments
    ---------
    source : A hub name or a local folder.

    Returns
    -------
    Empty where the model has no ``preprocessor_config.json``.
    """
    from transformers import FeatureExtractionMixin

    try:
        return FeatureExtractionMixin.get_feature_extractor_dict(source)[0]
    except OSError:
        return {}


@contextlib.contextmanager
def inference(device: torch.device, precision: str):
    """Compute without gradients, and in the precision that was asked for.

    On GPUs "float32" products are TF32 (10 bits) where SpeechBrain's quirks
    or cuDNN's default allow it, and then depend on the size of the batch;
    here they are float32.

    Arguments
    ---------
    precision : ``fp32`` or ``bf16``.
    """
    matmul = torch.get_float32_matmul_precision()
    convolution = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with (
            torch.inference_mode(),
            torch.autocast(
                torch.device(device).type,
                torch.bfloat16,
                enabled=precision == "bf16",
            ),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


class PretrainedModel:
    """What tokenizers of pretrained models share: a model, and where it is.

    A subclass is a :class:`Tokenizer` that has ``kind`` (the ``type`` of its
    ``config``), ``_load()``, which returns the model, and ``_choices()``, what
    else decides its units.

    Arguments
    ---------
    source : A hub name or a local folder.
    precision
        ``fp32``, or ``bf16``: faster, but then the rounding, and with it a
        unit here and there, may depend on the batch.
    """

    def __init__(self, source: str, precision: str) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision is {precision!r}; expected one of "
                f"{', '.join(PRECISIONS)}"
            )
        self.source = source
        self.precision = precision
        self.device = torch.device("cpu")

    @functools.cached_property
    def _model(self):
        model = self._load().requires_grad_(False)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                # A codec would give one and the same unit for any speech.
                raise ValueError(
                    f"{self.source}: its weights '{name}' are not all finite "
                    "numbers; fetch the model again"
                )
        return model.to(self.device)

    @functools.cached_property
    def config(self):
        """What was chosen, and which weights it works with."""
        return {
            "type": self.kind,
            "weights": tensors_identity(self._model),
            **self._choices(),
            "deduplicate": self.deduplicated,
            "precision": self.precision,
        }

    def to(self, device):
        """Compute on another device; see :meth:`Tokenizer.to`."""
        self.device = torch.device(device)
        if "_model" in self.__dict__:
            self._model.to(self.device)
        return self
