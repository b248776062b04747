"""Whisper encoders from CTranslate2 folders, the format of faster-whisper.

``model.bin`` is a header, named variables (rank, shape, type, bytes) and
aliases of equal ones (``specs/model_spec.py`` of CTranslate2, binary version
6). It is read without that package; weights of 8 or 16 bits become float32.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from transformers.models.whisper.configuration_whisper import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechbrain_slm.utils.whisper_weights import MODEL_BIN

BINARY_VERSION = 6
SPEC = "WhisperSpec"
# By type number; NumPy has no bfloat16: its 16 bits are the upper half of a
# float32.
_TYPES = ("<f4", "i1", "<i2", "<i4", "<f2", "bfloat16")


class CTranslate2File:
    """The variables of a ``model.bin``, each read when it is asked for."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        damaged = (struct.error, UnicodeDecodeError, IndexError, EOFError)
        with open(path, "rb") as file:
            try:
                self._read_index(file)
            except damaged as error:
                raise ValueError(
                    f"{path} is truncated or damaged; expected a complete "
                    f"CTranslate2 {MODEL_BIN}. Fetch it again."
                ) from error

    def _read_index(self, file: BinaryIO) -> None:
        size = self.path.stat().st_size

        def number(form):
            (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
            return value

        def text():
            length = number("<H")
            return number(f"{length}s")[:-1].decode()

        version = number("<I")
        spec = text() if version == BINARY_VERSION else "a model"
        if (version, spec) != (BINARY_VERSION, SPEC):
            raise ValueError(
                f"{self.path}: found {spec} of binary version {version}; "
                f"expected {SPEC} of version {BINARY_VERSION}. Convert the "
                "model with a recent ct2-transformers-converter."
            )
        number("<I")  # the specification's revision
        # (type, shape, start in the file) by name.
        self._variables: dict[str, tuple[str, tuple[int, ...], int]] = {}
        for _ in range(number("<I")):
            name = text()
            shape = tuple(number("<I") for _ in range(number("<B")))
            kind = _TYPES[number("<B")]
            num_bytes = number("<I")
            width = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
            start = file.tell()
            expected = width * math.prod(shape)
            if num_bytes != expected or start + num_bytes > size:
                raise EOFError
            file.seek(num_bytes, 1)  # weights stay on the disk
            self._variables[name] = (kind, shape, start)
        for _ in range(number("<I")):
            alias, name = text(), text()
            # Written for tied weights: whoever comes second is an alias.
            for suffix in ("", "_scale"):
                if found := self._variables.get(name + suffix):
                    self._variables[alias + suffix] = found
        if file.tell() != size:
            raise EOFError

    def __contains__(self, name: str) -> bool:
        return name in self._variables

    def __getitem__(self, name: str) -> np.ndarray:
        """Read a variable as float32, its quantization undone."""
        array = self._read(name)
        if array.dtype.kind == "i" and f"{name}_scale" in self:
            # One scale for all (int16) or one a row (int8), which was
            # multiplied by.
            scale = self._read(f"{name}_scale")
            shape = scale.shape + (1,) * (array.ndim - scale.ndim)
            array = array.astype(np.float32) / scale.reshape(shape)
        return array.astype(np.float32)

    def _read(self, name: str) -> np.ndarray:
        if name not in self:
            told = "expected the encoder of a Whisper model"
            raise ValueError(f"{self.path}: it has no '{name}'; {told}")
        kind, shape, start = self._variables[name]
        stored = "<u2" if kind == "bfloat16" else kind
        count = math.prod(shape)
        array = np.fromfile(self.path, stored, count, offset=start)
        if kind == "bfloat16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array.reshape(shape)


# Where a layer's modules stand in the file, and in transformers' model.
_MODULES = {
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
}


def load_whisper_encoder(folder: str | Path) -> WhisperEncoder:
    """Read the encoder of a Whisper model, in float32 and eval mode.

    ValueError if ``model.bin`` is damaged or holds something else.
    """
    file = CTranslate2File(Path(folder) / MODEL_BIN)
    places = file["encoder/position_encodings/encodings"]
    state = {"embed_positions.weight": places}

    def copy(here, there):
        for kind, of_norm in (("weight", "gamma"), ("bias", "beta")):
            name = of_norm if here.endswith("layer_norm") else kind
            state[f"{there}.{kind}"] = file[f"encoder/{here}/{name}"]

    for name in ("layer_norm", "conv1", "conv2"):
        copy(name, name)
    # The file does not say how many layers there are.
    num_layers = 0
    while f"encoder/layer_{num_layers}/ffn/linear_0/weight" in file:
        here, there = f"layer_{num_layers}/", f"layers.{num_layers}."
        for name, own in _MODULES.items():
            copy(here + name, there + own)
        for kind in ("weight", "bias"):
            fused = file[f"encoder/{here}self_attention/linear_0/{kind}"]
            for name, part in zip("qkv", np.split(fused, 3), strict=True):
                state[f"{there}self_attn.{name}_proj.{kind}"] = part
        # Whisper's keys have no bias; CTranslate2 writes zeros.
        del state[f"{there}self_attn.k_proj.bias"]
        num_layers += 1
    if not num_layers:
        raise ValueError(f"{file.path}: its encoder has no layers")
    width, num_mels, _ = state["conv1.weight"].shape
    config = WhisperConfig(
        d_model=width,
        num_mel_bins=num_mels,
        max_source_positions=len(state["embed_positions.weight"]),
        encoder_layers=num_layers,
        encoder_attention_heads=int(file["encoder/num_heads"]),
        encoder_ffn_dim=len(state["layers.0.fc1.bias"]),
    )
    encoder = WhisperEncoder(config).eval()
    tensors = {name: torch.tensor(array) for name, array in state.items()}
    encoder.load_state_dict(tensors)
    return encoder
