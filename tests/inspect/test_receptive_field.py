"""Receptive fields against the support of the gradient, and against published numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope import receptive_field, record
from convscope.inspect import fields
from convscope.models import build

# size, effective stride, padding of the last map. AlexNet, VGG-16: torchvision's networks, Araujo, Norris & Sim,
# "Computing Receptive Fields of Convolutional Neural Networks" (Distill 2019) by its formulae
PUBLISHED = {
    "torchvision:alexnet": (195, 32, 66),
    "torchvision:vgg16": (212, 32, 90),
    "torchvision:resnet18": (435, 32, 217),
    "torchvision:resnet50": (427, 32, 213),
}


@pytest.mark.parametrize("spec", PUBLISHED)
def test_published_fields(spec):
    recording = record(build(spec), torch.zeros(1, 3, 224, 224))
    last = [op for op in recording.ops if len(op.outputs[0].shape) == 4 and op.outputs[0].shape[-1] > 1]
    last = [op for op in last if not op.module.startswith("avgpool")][-1]
    field = fields(recording)[last.outputs[0].id]
    assert (field.size[2], field.stride[2], field.padding[2]) == PUBLISHED[spec]
    assert (field.size[3], field.stride[3], field.padding[3]) == PUBLISHED[spec]


class Residual(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, x):
        return self.a(x) + self.b(x)


def _layer(draw):
    size = draw(st.integers(1, 4))
    stride, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, size // 2))
    kind = draw(st.sampled_from(["conv", "max", "mean", "residual", "transposed"]))
    if kind == "conv":
        return nn.Conv2d(1, 1, size, stride, padding, dilation)
    if kind == "max":
        return nn.MaxPool2d(size, stride, padding)
    if kind == "mean":
        return nn.AvgPool2d(size, stride, padding)
    if kind == "transposed":
        return nn.ConvTranspose2d(1, 1, size, stride, min(padding, 1))
    k = draw(st.sampled_from([1, 3, 5]))
    return Residual(nn.Conv2d(1, 1, k, stride, k // 2), nn.Conv2d(1, 1, 3, stride, 1))


@st.composite
def networks(draw):
    return nn.Sequential(*[_layer(draw) for _ in range(draw(st.integers(1, 4)))])


def support(model, x, unit):
    """Rows and columns of the input with a gradient, averaging in place of maxima so that all count."""
    x = x.clone().requires_grad_()
    model(x)[unit].backward()
    places = x.grad[0, 0].nonzero()
    return None if len(places) == 0 else [(int(p.min()), int(p.max())) for p in places.T]


def positive(model):
    """A float64 copy whose weights are positive and whose maxima are means, so that nothing cancels."""
    layers = []
    for layer in model:
        if isinstance(layer, nn.MaxPool2d):
            layer = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
        layers.append(layer)
    copy = nn.Sequential(*layers).double()
    for p in copy.parameters():
        p.data = torch.rand_like(p) + 0.5
    return copy


@settings(max_examples=120)
@given(model=networks(), data=st.data())
def test_the_field_of_a_unit_is_the_hull_of_the_gradients_support(model, data):
    x = torch.ones(1, 1, 23, 29, dtype=torch.float64)
    model = positive(model)
    try:
        with torch.no_grad():
            y = model(x)
    except RuntimeError:  # the maps have shrunk to nothing
        return
    recording = record(model, x)
    unit = (0, 0, *(data.draw(st.integers(0, n - 1)) for n in y.shape[2:]))
    box = receptive_field(recording, recording.ops[-1], unit=unit)
    found = support(model, x, unit)
    if found is None:
        return
    clipped = [(max(lo, 0), min(hi, n - 1)) for (lo, hi), n in zip(box[2:], x.shape[2:], strict=True)]
    assert all(c[0] <= f[0] and c[1] >= f[1] for c, f in zip(clipped, found, strict=True))
    if not any(
        isinstance(m, nn.ConvTranspose2d) or getattr(m, "dilation", 1) not in (1, (1, 1)) for m in model.modules()
    ):
        strides_leave_no_gap = all(
            getattr(m, "stride", 1) in (1, (1, 1)) or _size(m) >= _stride(m) for m in model.modules()
        )
        if strides_leave_no_gap and clipped == list(box[2:]):  # no padding is read, that of maps in between included
            assert clipped == found


def _size(m):
    return m.kernel_size if isinstance(m.kernel_size, int) else m.kernel_size[0]


def _stride(m):
    return m.stride if isinstance(m.stride, int) else m.stride[0]


@settings(max_examples=120)
@given(model=networks(), data=st.data())
def test_the_forward_sweep_holds_the_backward_walk_and_is_equal_in_the_middle(model, data):
    x = torch.ones(1, 1, 23, 29)
    try:
        recording = record(model, x)
    except ValueError:  # the maps have shrunk to nothing
        return
    op = recording.ops[-1]
    field = fields(recording)[op.outputs[0].id]
    unit = tuple(data.draw(st.integers(0, n - 1)) for n in op.outputs[0].shape)
    for place in (unit, field.anchor):
        exact = receptive_field(recording, op, unit=place)
        swept = field.at(tuple((i, i) for i in place))
        if exact is not None:
            inside = [(max(lo, 0), min(hi, n - 1)) for (lo, hi), n in zip(exact, x.shape, strict=True)]
            assert all(s[0] <= e[0] and s[1] >= e[1] for s, e in zip(swept, inside, strict=True))
    up = any(isinstance(m, nn.ConvTranspose2d | Residual) for m in model.modules())
    if not up:
        assert swept == exact
