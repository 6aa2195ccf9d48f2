"""Every operator's terms make the value that PyTorch computed: random operators, and whole networks."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from convscope import record
from convscope.explain import EXPLAINERS, explain
from convscope.explain.operators import explainer_of
from convscope.table import to_json


class Of(nn.Module):
    """A function as a model."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


def every_op(function, *x, dtype=torch.float32):
    """(recording, operator, output, random unit) for each operator with an explanation."""
    model = function if isinstance(function, nn.Module) else Of(function)
    recording = record(model.to(dtype).eval(), *(t.to(dtype) for t in x), keep=lambda op: True)
    rng = np.random.default_rng(0)
    for op in recording.ops:
        for k, out in enumerate(op.outputs):
            if explainer_of(op, k) and 0 not in out.shape:
                yield recording, op, k, tuple(int(rng.integers(n)) for n in out.shape)


def holds(agrees, function, *x, dtype=torch.float32) -> set[str]:
    """The law for each operator that runs; which ones did."""
    seen = set()
    for recording, op, k, unit in every_op(function, *x, dtype=dtype):
        told = explain(recording, op, unit=unit, output=k)
        assert told.model_value == recording.tensors[op.outputs[k].id][unit].item()
        assert agrees(told), (op.target, unit, told.total, told.model_value)
        for term in told.terms:
            if term.source is not None:
                assert recording.tensors[term.source.id][term.index].item() == term.value
            if term.weight is not None and told.combine == "sum":
                assert term.contribution == pytest.approx(term.value * term.weight, rel=1e-12)
        if told.combine == "sum":
            assert sum(t.contribution for t in told.terms) == pytest.approx(told.total, rel=1e-9, abs=1e-9)
        assert str(told)
        assert to_json(told.data())
        seen.add(op.target.rpartition(".")[0])
    return seen


dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])
POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


@settings(max_examples=60)
@given(
    ndim=st.integers(2, 3), size=st.integers(1, 3), stride=st.integers(1, 3), ceil=st.booleans(), counts=st.booleans(),
    divisor=st.sampled_from([None, 3]), dtype=dtypes, data=st.data(),
)  # fmt: skip
def test_average_pooling(agrees, ndim, size, stride, ceil, counts, divisor, dtype, data):
    assume((ndim, dtype) != (3, torch.bfloat16))  # PyTorch has none
    padding = data.draw(st.integers(0, size // 2))
    side = data.draw(st.integers(size, 7))
    pool = POOL[ndim](size, stride, padding, ceil, counts, divisor)
    assert holds(agrees, pool, torch.randn(2, 3, *(side,) * ndim), dtype=dtype) == {f"aten.avg_pool{ndim}d"}


@settings(max_examples=30)
@given(side=st.integers(1, 9), wanted=st.integers(2, 5), dtype=dtypes)
def test_adaptive_average_pooling(agrees, side, wanted, dtype):
    assert holds(agrees, nn.AdaptiveAvgPool2d(wanted), torch.randn(1, 2, side, side + 1), dtype=dtype)
    assert holds(agrees, nn.AdaptiveAvgPool3d(wanted), torch.randn(1, 2, side, side + 1, 4), dtype=dtype)


@settings(max_examples=30)
@given(dims=st.sets(st.integers(-4, 3), min_size=1, max_size=4), keep=st.booleans())
def test_means_and_sums(agrees, dims, keep):
    assume(len({d % 4 for d in dims}) == len(dims))
    x = torch.randn(2, 3, 4, 5)
    assert holds(agrees, lambda x: x.mean(tuple(dims), keepdim=keep), x) == {"aten.mean"}
    assert holds(agrees, lambda x: x.sum(tuple(dims), keepdim=keep), x) == {"aten.sum"}
    assert holds(agrees, lambda x: x.mean() + x.sum(), x) == {"aten.mean", "aten.sum", "aten.add"}


ACTIVATIONS = {
    "relu": F.relu, "leaky_relu": F.leaky_relu, "elu": F.elu, "hardtanh": F.relu6, "clamp": lambda x: x.clamp(-1, 0.5),
    "clamp_min": lambda x: x.clamp_min(0.1), "sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid,
    "tanh": torch.tanh, "silu": F.silu, "hardswish": F.hardswish, "mish": F.mish, "softplus": F.softplus,
    "gelu": lambda x: F.gelu(x, approximate="tanh"), "exp": torch.exp, "log": lambda x: (x * x + 1).log(),
    "sqrt": lambda x: (x * x).sqrt(), "rsqrt": lambda x: (x * x + 1).rsqrt(), "neg": torch.neg, "abs": torch.abs,
    "relu_": lambda x: F.relu_(x + 0), "leaky_relu_": lambda x: F.leaky_relu_(x + 0), "elu_": lambda x: F.elu_(x + 0),
    "hardtanh_": lambda x: F.hardtanh_(x + 0, 0.0, 6.0), "sigmoid_": lambda x: (x + 0).sigmoid_(),
    "hardsigmoid_": lambda x: F.hardsigmoid(x + 0, inplace=True), "tanh_": lambda x: (x + 0).tanh_(),
    "silu_": lambda x: F.silu(x + 0, inplace=True), "hardswish_": lambda x: F.hardswish(x + 0, inplace=True),
    "mish_": lambda x: F.mish(x + 0, inplace=True),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_activations(agrees, name, dtype):
    x = 4 * torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    for row in x:
        assert f"aten.{name}" in holds(agrees, ACTIVATIONS[name], row, dtype=dtype)


@settings(max_examples=40)
@given(
    left=st.sampled_from([(2, 3, 4), (3, 1), (1, 1, 4), (4,), ()]), number=st.floats(-3, 3), alpha=st.floats(-3, 3),
    dtype=dtypes,
)  # fmt: skip
def test_arithmetic_with_broadcasting_and_numbers(agrees, left, number, alpha, dtype):
    a, b = torch.randn(left), torch.randn(2, 3, 4)
    seen = holds(agrees, lambda a, b: torch.add(a, b, alpha=alpha) + number, a, b, dtype=dtype)
    seen |= holds(agrees, lambda a, b: torch.sub(b, a, alpha=alpha) - number, a, b, dtype=dtype)
    seen |= holds(agrees, lambda a, b: number - b * a * number, a, b, dtype=dtype)
    seen |= holds(agrees, lambda a, b: b / (a * a + 1) / 3, a, b, dtype=dtype)
    seen |= holds(agrees, lambda b: b.clone().add_(1).sub_(b).mul_(b).div_(2), b, dtype=dtype)
    assert seen >= {f"aten.{n}" for n in ("add", "sub", "rsub", "mul", "div", "add_", "sub_", "mul_", "div_")}


@settings(max_examples=30)
@given(groups=st.sampled_from([1, 2, 4]), affine=st.booleans(), dtype=dtypes, seed=st.integers(0, 99))
def test_normalisation(agrees, groups, affine, dtype, seed):
    torch.manual_seed(seed)
    x, shape = 3 * torch.randn(2, 4, 3, 5) + 1, (3, 5)
    layers = (
        nn.BatchNorm2d(4, affine=affine),
        nn.GroupNorm(groups, 4, affine=affine),
        nn.LayerNorm(shape, 1e-3, affine),
    )
    for layer in layers:
        for p in (*layer.parameters(), *(b for b in layer.buffers() if b.is_floating_point())):
            p.data.uniform_(0.5, 2)
        assert len(holds(agrees, layer, x, dtype=dtype)) == 1


@settings(max_examples=30)
@given(dim=st.integers(-3, 2), size=st.integers(1, 20), dtype=dtypes)
def test_softmax_and_its_logarithm(agrees, dim, size, dtype):
    x = 5 * torch.randn(2, size, 3)
    seen = holds(agrees, lambda x: x.softmax(dim) + x.log_softmax(dim), x, dtype=dtype)
    assert seen == {"aten._softmax", "aten._log_softmax", "aten.add"}


@settings(max_examples=60)
@given(
    side=st.integers(1, 6), wanted=st.integers(1, 11), corners=st.booleans(),
    factor=st.sampled_from([None, 0.7, 1.6, 2]), dtype=dtypes,
)  # fmt: skip
def test_interpolation(agrees, side, wanted, corners, factor, dtype):
    assume(factor is None or int(side * factor) > 0)
    to = {"size": wanted} if factor is None else {"scale_factor": float(factor)}
    for ndim, mode in ((1, "linear"), (2, "bilinear"), (3, "trilinear")):
        x = torch.randn(2, 3, *(side,) * ndim)
        name = f"aten.upsample_{mode}{ndim}d"
        assert holds(
            agrees, lambda x, m=mode: F.interpolate(x, mode=m, align_corners=corners, **to), x, dtype=dtype
        ) == {name}
        assert holds(agrees, lambda x: F.interpolate(x, mode="nearest", **to), x) == {f"aten.upsample_nearest{ndim}d"}


MOVES = {
    "cat": lambda x: torch.cat([x, 2 * x, x[:, :1]], 1), "stack": lambda x: torch.stack([x, 2 * x], -1),
    "constant_pad_nd": lambda x: F.pad(x, (1, 2, -1, 3), value=7), "view": lambda x: x.view(6, -1),
    "_to_copy": lambda x: x.to(torch.int32), "permute": lambda x: x.permute(2, 0, 3, 1), "t": lambda x: x[0, 0].t(),
    "transpose": lambda x: x.transpose(1, -1), "expand": lambda x: x[:, :1].expand(2, 5, 4, 6),
    "slice": lambda x: x[:, 1:, ::2], "select": lambda x: x[1, :, -1], "squeeze": lambda x: x[:, :1].squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(2), "split": lambda x: x.split(2, 3)[1], "unbind": lambda x: x.unbind(1)[2],
    "split_with_sizes": lambda x: x.split([1, 2], 1)[1], "roll": lambda x: x.roll((1, -2), (2, 3)),
    "flip": lambda x: x.flip(1, 2), "pixel_shuffle": lambda x: F.pixel_shuffle(x.transpose(1, 2), 2),
    "clone": lambda x: x.permute(0, 2, 3, 1).contiguous(), "detach": lambda x: x.detach(),
    "alias": torch.ops.aten.alias.default, "_unsafe_view": lambda x: x.permute(0, 2, 3, 1).reshape(-1),
    "lift_fresh": lambda x: x + torch.tensor([1.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_what_only_moves_values_is_exact(agrees, name):
    seen = set()
    for recording, op, k, unit in every_op(MOVES[name], torch.randn(2, 3, 4, 6)):
        told = explain(recording, op, unit=unit, output=k)
        if told.combine == "copy":
            assert told.difference == 0
            assert len(told.terms) == 1
            seen.add(op.target.rpartition(".")[0])
    assert f"aten.{name}" in seen


def test_padding_has_no_source():
    recording = record(Of(lambda x: F.pad(x, (1, 0), value=7)), torch.zeros(1, 2), keep=lambda op: True)
    (term,) = explain(recording, 0, unit=(0, 0)).terms
    assert (term.label, term.source, term.value) == ("padding", None, 7)


@settings(max_examples=30)
@given(rows=st.integers(1, 4), inner=st.integers(1, 12), columns=st.integers(1, 4), dtype=dtypes)
def test_products_of_matrices(agrees, rows, inner, columns, dtype):
    a, b, c = torch.randn(3, rows, inner), torch.randn(3, inner, columns), torch.randn(columns)
    seen = holds(
        agrees, lambda a, b, c: torch.baddbmm(c, a, b, beta=0.5, alpha=2) + torch.bmm(a, b), a, b, c, dtype=dtype
    )
    seen |= holds(
        agrees, lambda a, b, c: torch.addmm(c, a[0], b[0], beta=2, alpha=0.5) + a[1] @ b[1], a, b, c, dtype=dtype
    )
    assert seen >= {"aten.baddbmm", "aten.bmm", "aten.addmm", "aten.mm"}


def test_maximum_pooling_in_three_dimensions(agrees):
    assert holds(agrees, nn.MaxPool3d(3, 2, 1, dilation=2), torch.randn(1, 2, 7, 7, 7))


NETWORKS = (
    "resnet18",
    "mobilenet_v2",
    "efficientnet_b0",
    "convnext_tiny",
    "fcn_resnet50",
    "densenet121",
    "mobilenet_v3_small",
)


def network(name: str) -> nn.Module:
    if name == "fcn_resnet50":
        return torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None)
    return getattr(torchvision.models, name)(weights=None)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_of_torchvision_networks(agrees, name):
    torch.manual_seed(0)
    seen = 0
    for recording, op, k, unit in every_op(network(name), torch.rand(1, 3, 64, 64)):
        told = explain(recording, op, unit=unit, output=k)
        assert agrees(told), (op.target, op.module, unit, told.total, told.model_value)
        seen += 1
    assert seen > 60


def test_every_entry_names_an_operator_of_pytorch():
    for name in EXPLAINERS:
        packet, *overload = name.removeprefix("aten.").split(".")
        found = getattr(torch.ops.aten, packet)
        assert not overload or getattr(found, overload[0])
