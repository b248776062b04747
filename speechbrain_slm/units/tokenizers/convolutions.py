"""Convolutions in time as products of matrices, for GPUs.

For one dimension and float32, cuDNN's convolutions reach a tenth of a card;
products reach most of it. Frames stand one after the other, each with all its
channels: a window is then so many numbers in a row, and nothing is copied. In
groups, as HuBERT's positional convolution, which cuDNN does by Fourier
transforms (65 % of HuBERT base's time in float32), windows are copied, those of
a group at a time.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from torch.nn.utils.parametrize import is_parametrized

# Channels of a group from which its products are worth their start.
_GROUP = 16


def applies(hidden: Tensor) -> bool:
    """Tell whether products are quicker there."""
    return hidden.is_cuda


def pad_frames(hidden: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad ``[B, C, T]`` in time: with zeros, or for ``replicate`` the ends."""
    if not left and not right:
        return hidden
    batch, channels, frames = hidden.shape
    padded = hidden.new_empty(batch, left + frames + right, channels)
    padded[:, left : left + frames] = hidden.transpose(1, 2)
    padded[:, :left] = 0
    padded[:, left + frames :] = 0
    if mode == "replicate":
        padded[:, :left] = hidden[:, :, :1].transpose(1, 2)
        padded[:, left + frames :] = hidden[:, :, -1:].transpose(1, 2)
    return padded.transpose(1, 2)


class ProductConv1d(nn.Conv1d):
    """A convolution of the same weights; no dilation, padding with zeros."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Convolve ``[B, C, T]``."""
        sides = () if isinstance(self.padding, str) else self.padding * 2
        (kernel,), (stride,) = self.kernel_size, self.stride
        plain = self.padding_mode == "zeros" and self.dilation == (1,)
        worth = self.groups == 1 or self.in_channels // self.groups >= _GROUP
        there = hidden.shape[2] + sum(sides) >= kernel
        if not (sides and plain and worth and there and applies(hidden)):
            return super().forward(hidden)
        if any(sides):
            hidden = pad(hidden, sides)
        if self.groups > 1:
            found = self._grouped(hidden)
        elif self.in_channels == 1:  # windows of a few numbers are copied
            windows = hidden[:, 0].unfold(1, kernel, stride).contiguous()
            found = linear(windows, self.weight[:, 0], self.bias)
        else:
            found = self._products(hidden.transpose(1, 2).contiguous())
        return found.transpose(1, 2)

    def _grouped(self, hidden):
        """Convolve ``[B, C, T]`` in groups, to ``[B, T', C']``."""
        # Once: weight normalization computes it anew each time.
        weight = self.weight.flatten(1)
        (hidden,) = _cast(hidden)  # before its windows are many
        parts = [hidden.chunk(self.groups, 1), weight.chunk(self.groups)]
        biases = [None] * self.groups
        if self.bias is not None:
            biases = self.bias.chunk(self.groups)
        found = []
        for part, own, bias in zip(*parts, biases, strict=True):
            windows = part.unfold(2, self.kernel_size[0], self.stride[0])
            # One sum over all of a window: bfloat16 rounds it once.
            windows = windows.transpose(1, 2).flatten(2)
            found.append(linear(windows, own, bias))
        return torch.cat(found, dim=2)

    def _products(self, hidden):
        """Convolve ``[B, T, C]``."""
        weight = self.weight.permute(2, 1, 0)  # [kernel, C, C']
        hidden, weight = _cast(hidden, weight)
        (kernel,), (stride,) = self.kernel_size, self.stride
        batch, length, channels = hidden.shape
        frames = (length - kernel) // stride + 1
        found = hidden.new_empty(batch, frames, self.out_channels)
        found[:] = 0 if self.bias is None else self.bias
        # A product takes as many frames of a window as the next one is away:
        # kernel 3, stride 2 are frames 0 and 1 of each window, then frame 2.
        for first in range(0, kernel, stride):
            taps = min(stride, kernel - first)
            windows = hidden.as_strided(
                (batch, frames, taps * channels),
                (length * channels, stride * channels, 1),
                hidden.storage_offset() + first * channels,
            )
            part = weight[first : first + taps].reshape(1, -1, found.shape[2])
            found.baddbmm_(windows, part.expand(batch, -1, -1))
        return found


def _cast(*tensors):
    """Bring tensors to what products of autocast are in, if that is on."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(one.to(torch.get_autocast_dtype(kind)) for one in tensors)


def use_products(model: nn.Module) -> None:
    """Have a model's convolutions computed so where that is quicker."""
    # The weights stay where they are: only what is done changes.
    for module in model.modules():
        kind = type(module)
        if kind is nn.Conv1d:
            module.__class__ = ProductConv1d
        elif isinstance(module, ProductConv1d):
            continue
        elif isinstance(module, nn.Conv1d) and is_parametrized(module):
            # Its class makes the weights of what is normalized.
            bases = (ProductConv1d, kind)
            module.__class__ = type(ProductConv1d.__name__, bases, {})
