import copy

import pytest
import torch
from torch import nn

from speechbrain_slm.models.linear import Linear, use_onednn

if not torch.backends.mkldnn.is_available():
    pytest.skip("PyTorch is built without oneDNN", allow_module_level=True)


def twins(bias, dtype=torch.float32):
    torch.manual_seed(0)
    plain = nn.Linear(24, 50, bias=bias, dtype=dtype)
    ours = copy.deepcopy(plain)
    use_onednn(ours)
    assert type(ours) is Linear
    return plain, ours


def pass_through(layer, shape, dtype=torch.float32):
    torch.manual_seed(1)
    inputs = torch.randn(shape, dtype=dtype, requires_grad=True)
    outputs = layer(inputs)
    outputs.square().sum().backward()
    return [outputs, inputs.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 7, 24), (1, 1, 24)])
def test_equals_pytorch(bias, shape):
    found = [pass_through(layer, shape) for layer in twins(bias)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("case", ["bfloat16", "autocast", "meta"])
def test_anything_but_fp32_is_left_to_pytorch(case):
    dtype = torch.bfloat16 if case == "bfloat16" else torch.float32
    plain, ours = twins(True, dtype)
    if case == "meta":
        assert ours.to("meta")(torch.empty(3, 24, device="meta")).is_meta
        return
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        expected, found = (
            pass_through(layer, (7, 24), dtype) for layer in (plain, ours)
        )
    assert found[0].dtype == torch.bfloat16
    assert all(map(torch.equal, expected, found))


def test_strided_inputs():
    plain, ours = twins(True)
    inputs = torch.randn(24, 7, 3).transpose(0, 2)
    torch.testing.assert_close(ours(inputs), plain(inputs))


def test_torch_library_finds_no_fault():
    weight = torch.randn(5, 4, requires_grad=True)
    inputs = torch.randn(2, 3, 4, requires_grad=True)
    for bias in (None, torch.randn(5, requires_grad=True)):
        torch.library.opcheck(
            torch.ops.speechbrain_slm.linear.default, (inputs, weight, bias)
        )
