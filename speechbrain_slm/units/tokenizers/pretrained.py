"""Pretrained models by hub name or local folder, and how they compute.

Nothing in their files is executed: weights are safetensors, or are read by
``torch.load`` with ``weights_only``, and no code of a hub repository is run.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechbrain_slm.units.tokenizers.base import check_choice
from speechbrain_slm.units.tokenizers.batches import (
    BROKEN,
    ROUNDED,
    Found,
    InBatches,
)
from speechbrain_slm.units.tokenizers.codebook import UNDECIDED
from speechbrain_slm.units.tokenizers.kmeans import KMeansTokenizer, one_thread
from speechbrain_slm.utils.hashing import tensors_identity
from speechbrain_slm.utils.pretrained import load_whole, not_there

if TYPE_CHECKING:
    from typing_extensions import Self

PRECISIONS = ("fp32", "tf32", "bf16")
# A vector for masked training, which some published checkpoints lack.
UNUSED = r"masked_spec_embed$"


def load_config(source: str | Path, model_types: Sequence[str]) -> Any:
    """Read a model's configuration, and refuse one of another type."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise not_there(source, "config.json", error) from error
    if config.model_type not in model_types:
        told = f"{source} is a {config.model_type} model; expected "
        raise ValueError(told + " or ".join(model_types))
    return config


def load_model(source: str | Path, config: Any) -> Any:
    """Load a model of ``transformers`` in float32, in eval mode.

    ``config`` may ask for fewer layers than :func:`load_config` found.
    ValueError if weights are damaged or missing: those would stay random.
    """
    from transformers import AutoModel

    try:
        # Surplus: its head, and the layers above the one that is asked for.
        which = {"absent": UNUSED, "surplus": "."}
        how = {"config": config, "dtype": torch.float32}
        return load_whole(AutoModel, source, **which, **how).eval()
    except OSError as error:
        raise not_there(source, "weights", error) from error


@contextlib.contextmanager
def inference(device: torch.device, precision: str) -> Iterator[None]:
    """Compute without gradients, in a precision of ``PRECISIONS``."""
    # On GPUs "float32" products are TF32 (10 bits) where SpeechBrain's quirks
    # or cuDNN's default allow it, and then depend on the size of the batch.
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    convolution, short = cudnn.allow_tf32, precision == "tf32"
    torch.set_float32_matmul_precision("high" if short else "highest")
    cudnn.allow_tf32 = short
    half = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bf16"
    )
    try:
        with torch.inference_mode(), half:
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32 = convolution


class PretrainedModel:
    """What tokenizers of pretrained models share: a model, and where it is.

    A subclass is a :class:`Tokenizer` that has ``kind`` (the ``type`` of its
    ``config``), ``_load()``, which returns the model, and ``choices``, the
    names of what else decides its units.

    Arguments
    ---------
    source : A hub name or a local folder.
    precision
        ``fp32``, or ``tf32`` (on GPUs) or ``bf16``: faster, but then the
        rounding, and with it a unit here and there, may depend on the batch.
    """

    kind: str
    choices: tuple[str, ...]
    sample_rate: Any
    deduplicated: bool
    _load: Any

    def __init__(self, source: str | Path, precision: str) -> None:
        check_choice("precision", precision, PRECISIONS)
        self.source, self.precision = source, precision
        self.device = torch.device("cpu")

    # When it is first needed: a YAML file can be read without the model.
    @functools.cached_property
    def _model(self) -> Any:
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
    def _exact_model(self) -> Any:
        """The model in float64, for what rounding may decide."""
        return copy.deepcopy(self._model).double()

    def _model_in(self, precision: str) -> Any:
        return self._exact_model if precision == "fp64" else self._model

    def _check_number(self, name: str, there_are: int) -> None:
        if not 1 <= (number := getattr(self, name)) <= there_are:
            raise ValueError(
                f"{name} is {number}; {self.source} has {there_are}, expected "
                f"1 to {there_are}"
            )

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """What was chosen, and which weights it works with."""
        # The weights and not the source: a model that has moved is the same.
        return {
            "type": self.kind,
            "weights": tensors_identity(self._model),
            **{name: getattr(self, name) for name in self.choices},
            "deduplicate": self.deduplicated,
            "precision": self.precision,
        }

    def to(self, device: str | torch.device) -> Self:
        """Compute on another device; see :meth:`Tokenizer.to`."""
        self.device = torch.device(device)
        # One that is not loaded yet goes there by itself.
        for name in {"_model", "_exact_model"} & self.__dict__.keys():
            getattr(self, name).to(self.device)
        return self


class LayerKMeans(InBatches, PretrainedModel, KMeansTokenizer):
    """K-means over an encoder's layer; subclasses know the encoder.

    Arguments
    ---------
    source, precision : See :class:`PretrainedModel`.
    layer
        Layer whose output is clustered, from 1. Layers above it are not kept.
    centroids, codebooks, deduplicate : See :class:`KMeansTokenizer`.
    """

    patience = 100
    choices: tuple[str, ...] = ("layer", "num_clusters", "codebooks")

    def __init__(
        self,
        source: str | Path,
        layer: int,
        num_clusters: int = 500,
        centroids: str | Path | None = None,
        codebooks: str = "joint",
        deduplicate: bool = True,
        precision: str = "fp32",
    ) -> None:
        # One after the other: their arguments are not the same.
        how = (num_clusters, codebooks, deduplicate, centroids)
        KMeansTokenizer.__init__(self, *how)
        PretrainedModel.__init__(self, source, precision)
        self.layer = layer

    def features(self, wavs: Tensor, lengths: Tensor) -> list[Tensor]:
        """Compute the points; see :meth:`KMeansTokenizer.features`."""
        return self._features(wavs, lengths, self.precision)

    def _features(
        self, wavs: Tensor, lengths: Tensor, precision: str
    ) -> list[Tensor]:
        """Compute them, ``[U, D]``, on the device, in a precision."""
        raise NotImplementedError

    def _compute(
        self,
        wavs: Tensor,
        lengths: Tensor,
        languages: list[str] | None,
        precision: str,
    ) -> Found:
        languages = self.languages_of(wavs, languages)
        features = self._features(wavs, lengths, precision)
        # Those of a language stand together, and are assigned together.
        order = sorted(range(len(features)), key=languages.__getitem__)
        ends = np.cumsum([0, *(len(features[i]) for i in order)])
        places = [slice(0)] * len(order)
        for i, begin, end in zip(order, ends, ends[1:], strict=False):
            places[i] = slice(begin, end)
        found = []
        for language in sorted(set(languages)):
            rows = [features[i] for i in order if languages[i] == language]
            found.append(self._nearest(torch.cat(rows), language))
        units, states = map(torch.cat, zip(*found, strict=True))
        return Found(units, states, places)

    def _nearest(self, points, language):
        book, scaled = self.book(points, language)
        # Distances in TF32 would see no doubt where there is some.
        with inference(points.device, "fp32"), one_thread():
            units, borders, norms = book.nearest(scaled)
            # NaN is nearest to nothing: argmin would say the first centroid.
            finite = scaled.sum(dim=1, dtype=torch.float64).isfinite()
            states = (borders <= UNDECIDED * norms).to(torch.int8) * ROUNDED
            return units, torch.where(finite, states, BROKEN)
