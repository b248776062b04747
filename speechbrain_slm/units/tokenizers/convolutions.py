"""Convolutions in time as products of matrices, for GPUs.

For one dimension and float32, cuDNN's convolutions reach a tenth of a card;
products reach most of it. Frames stand one after the other, each with all its
channels: a window is then so many numbers in a row, and nothing is copied.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


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
    """A convolution of the same weights; no padding, groups or dilation."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Convolve ``[B, C, T]``."""
        plain = self.padding == (0,) and self.groups == self.dilation[0] == 1
        (kernel,), (stride,) = self.kernel_size, self.stride
        if not (plain and applies(hidden) and hidden.shape[2] >= kernel):
            return super().forward(hidden)
        if self.in_channels == 1:  # windows of a few numbers are copied
            windows = hidden[:, 0].unfold(1, kernel, stride).contiguous()
            found = linear(windows, self.weight[:, 0], self.bias)
        else:
            found = self._products(hidden.transpose(1, 2).contiguous())
        return found.transpose(1, 2)

    def _products(self, hidden):
        """Convolve ``[B, T, C]``."""
        weight = self.weight.permute(2, 1, 0)  # [kernel, C, C']
        kind = hidden.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            hidden, weight = hidden.to(dtype), weight.to(dtype)
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


def use_products(model: nn.Module) -> None:
    """Have a model's convolutions computed so where that is quicker."""
    for module in model.modules():
        # The weights stay where they are: only what is done changes.
        if type(module) is nn.Conv1d:
            module.__class__ = ProductConv1d
