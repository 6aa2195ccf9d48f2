"""The exact set of elements against the support of the gradient: always equal."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Branches, Squeeze, networks, ones, output, positive, support
from torch import nn

from convscope import record
from convscope.errors import InputError
from convscope.inspect import reach
from convscope.inspect.reach import MOST_PRODUCTS, union


@settings(max_examples=150, deadline=None)
@given(model=networks(), data=st.data())
def test_it_is_the_support_of_the_gradient(model, data):
    x, model = ones(), positive(model)
    made = output(model, x)
    if made is None:
        return
    recording = record(model, x)
    unit = tuple(data.draw(st.integers(0, n - 1)) for n in made.shape)
    found = reach(recording, recording.ops[-1], unit=unit)
    assert np.array_equal(found.mask(), support(model, x, unit))
    assert found.bounded_by == ()


class Attention(nn.Module):
    def __init__(self, normed=True):
        super().__init__()
        self.normed = normed

    def forward(self, x):
        return (x @ x.transpose(-1, -2)).softmax(-1) @ x if self.normed else x @ x.transpose(-1, -2)


CASES = {
    "grouped": (nn.Conv2d(4, 4, 3, groups=2), 4),
    "shuffled": (nn.Sequential(nn.Conv2d(4, 4, 1, groups=4), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2)), 4),
    "holes of a stack": (nn.Sequential(nn.Conv2d(1, 1, 3, dilation=4), nn.Conv2d(1, 1, 2, dilation=3)), 1),
    "gaps of a stride": (nn.Sequential(nn.Conv2d(1, 1, 1, 3), nn.Conv2d(1, 1, 3)), 1),
    "cross": (Branches(nn.Conv2d(1, 1, (5, 1), padding=(2, 0)), nn.Conv2d(1, 1, (1, 5), padding=(0, 2))), 1),
    "squeeze": (Squeeze(), 1),
    "a matrix with itself": (Attention(normed=False), 1),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), 1),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), 1),
    "border repeated": (nn.Sequential(nn.ReplicationPad2d(3), nn.Conv2d(1, 1, 3, 2)), 1),
    "woven": (nn.PixelShuffle(2), 4),
    "woven back": (nn.Sequential(nn.Conv2d(1, 1, (2, 4)), nn.PixelUnshuffle(2)), 1),
    "channels woven": (nn.ChannelShuffle(2), 4),
    "adaptive": (nn.AdaptiveAvgPool2d((5, 4)), 2),
    "linear behind a view": (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (29, 23)), nn.Linear(23, 2).double()), 1),
    "reflected": (nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(1, 1, 3)), 1),
    "instance norm": (nn.Sequential(nn.InstanceNorm2d(2), nn.Conv2d(2, 2, 1, groups=2)), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_one_by_one(name):
    model, channels = CASES[name]
    x = torch.rand(1, channels, 23, 29, dtype=torch.float64) + 0.5
    model = positive(nn.Sequential(model))
    made, recording = output(model, x), record(model, x)
    for at in (0.0, 0.4, 0.99):
        unit = tuple(int(at * n) for n in made.shape)
        assert np.array_equal(reach(recording, recording.ops[-1], unit=unit).mask(), support(model, x, unit)), unit


def test_attention_reaches_every_row():
    recording = record(Attention(), torch.rand(1, 1, 5, 7))
    assert reach(recording, recording.ops[-1], unit=(0, 0, 0, 0)).mask().all()


def test_what_has_no_rule_is_a_bound_and_is_named():
    class Sums(nn.Module):
        def forward(self, x):
            return x.logcumsumexp(3)

    recording = record(Sums(), torch.zeros(1, 1, 4, 4))
    found = reach(recording, recording.ops[-1], unit=(0, 0, 1, 1))
    assert (found.bounded_by, found.mask().all()) == (("logcumsumexp",), True)


def test_a_second_input():
    class Two(nn.Module):
        def forward(self, a, b):
            return a[..., 2:] * b[..., :-2]

    recording = record(Two(), torch.zeros(1, 6), torch.zeros(1, 6))
    op, unit = recording.ops[-1], (0, 1)
    assert [reach(recording, op, unit=unit, source=s).box for s in (0, 1)] == [((0, 0), (3, 3)), ((0, 0), (1, 1))]


def test_a_unit_that_is_not_there():
    recording = record(nn.Sequential(nn.Conv2d(1, 2, 3)), torch.zeros(1, 1, 5, 5))
    with pytest.raises(InputError, match=r"0: there is no unit 0,2,0,0; use 0\.\.0, 0\.\.1, 0\.\.2, 0\.\.2"):
        reach(recording, recording.ops[-1], unit=(0, 2, 0, 0))


vectors = st.lists(st.booleans(), min_size=4, max_size=4).map(np.array)


@given(st.lists(st.tuples(vectors, vectors, vectors), max_size=30))
def test_a_union_keeps_the_set(products):
    def mask(parts):
        full = np.zeros((4, 4, 4), dtype=bool)
        for a, b, c in parts:
            full |= a[:, None, None] & b[:, None] & c
        return full

    joined = union(products)
    assert np.array_equal(mask(joined), mask(products))
    assert len(joined) <= max(MOST_PRODUCTS, 16)  # at most one for each row of rows
