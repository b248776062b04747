"""Whisper encoders in CTranslate2's format, written without its package."""

import struct

import numpy as np
import torch
from tiny_models import randomize
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechbrain_slm.utils.whisper_weights import MODEL_BIN

TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
LINEAR = ("conv1", "conv2", "linear_0", "linear_1")


def small_encoder():
    """Make an encoder of 2 layers whose windows are 1 s."""
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=24,
        num_mel_bins=80,
        max_source_positions=50,
    )
    torch.manual_seed(0)
    return randomize(WhisperEncoder(config), 0).eval()


def variables(encoder):
    """Name an encoder's weights as CTranslate2 does."""
    state = {
        name: tensor.numpy() for name, tensor in encoder.state_dict().items()
    }
    found = {
        "encoder/position_encodings/encodings": state["embed_positions.weight"],
        "encoder/num_heads": np.array(4, np.int16),
    }

    def copy(here, there, kinds=("weight", "bias")):
        for kind, own in zip(kinds, ("weight", "bias"), strict=True):
            found[f"encoder/{here}/{kind}"] = state[f"{there}.{own}"]

    norm = ("gamma", "beta")
    copy("layer_norm", "layer_norm", norm)
    for name in ("conv1", "conv2"):
        copy(name, name)
    for i in range(2):
        here, there = f"layer_{i}", f"layers.{i}"
        attention, self_attn = f"{here}/self_attention", f"{there}.self_attn"
        copy(f"{attention}/layer_norm", f"{self_attn}_layer_norm", norm)
        copy(f"{attention}/linear_1", f"{self_attn}.out_proj")
        copy(f"{here}/ffn/layer_norm", f"{there}.final_layer_norm", norm)
        copy(f"{here}/ffn/linear_0", f"{there}.fc1")
        copy(f"{here}/ffn/linear_1", f"{there}.fc2")
        state[f"{self_attn}.k_proj.bias"] = np.zeros(16, np.float32)
        for kind in ("weight", "bias"):
            found[f"encoder/{attention}/linear_0/{kind}"] = np.concatenate(
                [state[f"{self_attn}.{name}_proj.{kind}"] for name in "qkv"]
            )
    return found


def quantize(found, kind):
    """Store weights as CTranslate2's converter does."""
    result = {}
    for name, array in found.items():
        if (
            kind.startswith("int")
            and name.split("/")[-2] in LINEAR
            and (name.endswith("weight"))
        ):
            axes = tuple(range(1, array.ndim)) if kind == "int8" else None
            top = 127 if kind == "int8" else 1024
            scale = np.float32(top) / np.abs(array).max(axis=axes)
            wide = scale.reshape(scale.shape + (1,) * (array.ndim - scale.ndim))
            result[name] = np.rint(array * wide).astype(kind)
            result[f"{name}_scale"] = scale.astype(np.float32)
        elif kind == "float16" and array.dtype == np.float32:
            result[name] = array.astype(np.float16)
        else:
            result[name] = array
    return result


def write(folder, found, aliases=(), kind="float32", version=6, spec=None):
    """Write a model.bin; bfloat16 cuts the lower half off."""

    def text(string):
        return struct.pack("<H", len(string) + 1) + string.encode() + b"\0"

    blocks = [
        struct.pack("<I", version),
        text(spec or "WhisperSpec"),
        struct.pack("<II", 3, len(found)),
    ]
    for name, array in sorted(found.items()):
        blocks += [text(name), struct.pack("<B", array.ndim)]
        blocks += [struct.pack(f"<{array.ndim}I", *array.shape)]
        type_name, content = str(array.dtype), array.tobytes()
        if kind == "bfloat16" and type_name == "float32":
            type_name, upper = kind, array.view(np.uint32) >> 16
            content = upper.astype(np.uint16).tobytes()
        blocks.append(struct.pack("<BI", TYPES.index(type_name), len(content)))
        blocks.append(content)
    blocks.append(struct.pack("<I", len(aliases)))
    blocks += [text(name) for pair in aliases for name in pair]
    folder.mkdir(exist_ok=True)
    (folder / MODEL_BIN).write_bytes(b"".join(blocks))
    return folder
