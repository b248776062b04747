"""Linear layers that multiply by oneDNN on the CPU, in fp32.

PyTorch takes MKL there, which is the slower one on AMD processors: on an EPYC
9004, tools/benchmark/train_throughput.py gives 1 % more tokens a CPU second
by oneDNN, and 4 % more with --compile. Gradients of the weights, where the two
are alike, stay with MKL.
"""

import torch
from torch import nn

# What torch.compile puts in place of linear layers; not a public name.
_multiply = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


@torch.library.custom_op("speechbrain_slm::linear", mutates_args=())
def linear(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return ``inputs @ weight.T + bias`` of fp32 tensors on the CPU.

    Arguments
    ---------
    inputs : ``[..., in]``.
    weight : ``[out, in]``.
    bias : ``[out]``.

    Returns
    -------
    ``[..., out]``.

    Example
    -------
    >>> linear(torch.ones(1, 2), torch.tensor([[1.0, 2.0]]), torch.ones(1))
    tensor([[4.]])
    """
    return _multiply(inputs, weight, bias, "none", [], "")


@linear.register_fake
def _(inputs, weight, bias):
    return inputs.new_empty(*inputs.shape[:-1], weight.shape[0])


def _save(ctx, inputs, output):
    values, weight, bias = inputs
    ctx.save_for_backward(values, weight)
    ctx.has_bias = bias is not None


def _backward(ctx, gradient):
    values, weight = ctx.saved_tensors
    rows = gradient.reshape(-1, gradient.shape[-1])
    return (
        linear(gradient, weight.t(), None),
        rows.t() @ values.reshape(-1, values.shape[-1]),
        rows.sum(0) if ctx.has_bias else None,
    )


linear.register_autograd(_backward, setup_context=_save)


class Linear(nn.Linear):
    """A linear layer like PyTorch's; see the module's docstring."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Multiply.

        Arguments
        ---------
        inputs : ``[..., in_features]``.

        Returns
        -------
        ``[..., out_features]``.
        """
        fast = (
            inputs.device.type == "cpu"
            and inputs.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
        )
        if fast:
            return linear(inputs, self.weight, self.bias)
        return super().forward(inputs)


def use_onednn(model: torch.nn.Module) -> None:
    """Turn all linear layers of a model into ours, where oneDNN is built in.

    Arguments
    ---------
    model : Changed in place; its weights and their names stay.

    Example
    -------
    >>> model = nn.Sequential(nn.Linear(2, 3))
    >>> use_onednn(model)
    >>> type(model[0]).__module__
    'speechbrain_slm.models.linear'
    """
    if _multiply is None or not torch.backends.mkldnn.is_available():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
