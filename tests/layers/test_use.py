"""What a user does with a layer or a block: compile, export, ONNX, channels_last, low precision, gradients."""

import copy
import logging
import shutil
import warnings
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from convscope.layers import (
    ConvNormAct,
    DepthwiseSeparableConv,
    DilatedPyramid,
    FlattenedConv,
    InvertedResidual,
    PoolAndBack,
    ShuffledGroupConv,
    ShuffleUnit,
    SpatiallySeparableConv,
    UpBlock,
)

ALL: dict[str, Callable[[int], nn.Module]] = {
    "spatial": lambda ndim: SpatiallySeparableConv(8, 4, 3, padding=1, ndim=ndim),
    "depthwise": lambda ndim: DepthwiseSeparableConv(8, 4, 3, stride=2, ndim=ndim),
    "flattened": lambda ndim: FlattenedConv(8, 4, 3, dilation=2, padding="same", ndim=ndim),
    "shuffled": lambda ndim: ShuffledGroupConv(8, 4, 3, groups=2, ndim=ndim),
    "conv-norm-act": lambda ndim: ConvNormAct(8, 4, 3, act=nn.SiLU, ndim=ndim),
    "inverted-residual": lambda ndim: InvertedResidual(8, 8, expansion=2, ndim=ndim),
    "shuffle-unit": lambda ndim: ShuffleUnit(8, 16, groups=2, stride=2, ndim=ndim),
    "dilated-pyramid": lambda ndim: DilatedPyramid(8, 4, dilations=(2, 3), ndim=ndim),
    "up": lambda ndim: UpBlock(8, 4, ndim=ndim),
    "pool-and-back": lambda ndim: PoolAndBack(nn.Conv2d(8, 8, 1) if ndim == 2 else None, ndim=ndim),
}
every = pytest.mark.parametrize("name", ALL)
every_ndim = pytest.mark.parametrize("ndim", [1, 2, 3])

# PyTorch's own pooling and unpooling over three axes give channels_last_3d up: the values are the same.
LEFT = {("shuffle-unit", 3), ("pool-and-back", 3)}
BLOCK_KEYS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def block_keys(*paths: str) -> list[str]:
    """The keys of ConvNormAct at these paths."""
    return [key for p in paths for key in (f"{p}conv.weight", *(f"{p}norm.{k}" for k in BLOCK_KEYS))]


KEYS = {
    "spatial": ["axis0.weight", "axis1.weight", "axis1.bias"],
    "depthwise": ["depthwise.weight", "pointwise.weight", "pointwise.bias"],
    "flattened": ["across.weight", "down.weight", "along.weight", "along.bias"],
    "shuffled": ["conv.weight", "conv.bias"],
    "conv-norm-act": [
        "conv.weight",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ],
    "inverted-residual": block_keys("conv.widen.", "conv.depthwise.", "conv.narrow."),
    "shuffle-unit": [
        "enter.conv.weight",
        *(f"enter_norm.{k}" for k in BLOCK_KEYS),
        *block_keys("depthwise.", "leave."),
    ],
    "dilated-pyramid": block_keys("branches.0.", "branches.1.", "branches.2.", "mean.", "mix."),
    "up": ["up.weight", *(f"norm.{k}" for k in BLOCK_KEYS)],
    "pool-and-back": ["inner.weight", "inner.bias"],
}


def made(name: str, ndim: int = 2) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The layer in evaluation mode, an input, and what comes out."""
    torch.manual_seed(0)
    layer, x = ALL[name](ndim).eval(), torch.randn(2, 8, *(8, 7, 6)[:ndim])
    with torch.no_grad():
        return layer, x, layer(x)


@every
@every_ndim
def test_the_keys_of_the_state_are_a_promise(name, ndim):
    keys = KEYS[name]
    if name == "spatial":
        keys = [*(f"axis{i}.weight" for i in range(ndim)), f"axis{ndim - 1}.bias"]
    if name == "flattened":
        axes = ["down", "along", "through"][:ndim]
        keys = ["across.weight", *(f"{axis}.weight" for axis in axes), f"{axes[-1]}.bias"]
    if name != "pool-and-back" or ndim == 2:
        assert list(ALL[name](ndim).state_dict()) == keys


@every
@every_ndim
def test_compiled_and_exported(name, ndim):
    torch.compiler.reset()  # so many layers in one process are more than it compiles anew without asking
    layer, x, expected = made(name, ndim)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), expected)
        torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), expected)


def test_compiled_by_inductor():
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("there is no C++ compiler, which inductor needs")
    stack = nn.Sequential(DepthwiseSeparableConv(8, 8, 3, padding=1), ShuffledGroupConv(8, 4, 1, groups=2)).eval()
    x = torch.randn(2, 8, 8, 7)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inductor's own
        torch.testing.assert_close(torch.compile(stack, backend="inductor")(x), stack(x), atol=1e-5, rtol=1e-5)


@every
@every_ndim
def test_onnx_gives_the_same(name, ndim):
    layer, x, expected = made(name, ndim)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        model = torch.onnx.export(layer, (x,), dynamo=True, verbose=False)
    assert model is not None
    session = onnxruntime.InferenceSession(model.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=1e-4)


@every
@every_ndim
def test_channels_last_stays_and_bf16_is_near(name, ndim):
    layer, x, expected = made(name, ndim)
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}.get(ndim, torch.contiguous_format)
    with torch.no_grad():
        last = copy.deepcopy(layer).to(memory_format=layout)(x.to(memory_format=layout))
    if (name, ndim) not in LEFT:
        assert last.is_contiguous(memory_format=layout)
    torch.testing.assert_close(last, expected)
    if (name, ndim) == ("shuffle-unit", 3):  # PyTorch has no average pooling of three axes in bfloat16 on the CPU
        return
    with torch.no_grad():
        low = copy.deepcopy(layer).bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    if name != "pool-and-back":  # rounding chooses another maximum among near ones, and so another place
        torch.testing.assert_close(low.float(), expected, atol=0.1, rtol=0.1)


@every
@every_ndim
def test_gradients_of_the_input_and_of_all_weights(name, ndim):
    torch.manual_seed(0)
    layer = ALL[name](ndim).double().eval()
    x = torch.randn(1, 8, *(6, 5, 5)[:ndim], dtype=torch.float64, requires_grad=True)
    for norm in (m for m in layer.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)):
        nn.init.uniform_(norm.bias, 0.1, 1)  # away from 0, where a ReLU has no slope
    names = [n for n, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()), fast_mode=True)
