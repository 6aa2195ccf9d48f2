"""Whatever way a weight is changed, every form computes with what it holds now: PyTorch's own layer is the oracle."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.layers import DepthwiseSeparableConv, FlattenedConv
from convscope.layers.fast import content as told
from convscope.layers.fast import forms
from convscope.layers.fast.compiled import kernels
from convscope.layers.fast.content import content
from convscope.layers.fast.ways import ways
from sameness import close

needs_kernels = pytest.mark.skipif(kernels() is None, reason="no compiler, so no kernels of our own")
SIZES = st.sampled_from([1, 2, 3, 15, 16, 17, 31, 127, 128, 129, 1000, 16383, 16384, 16385, 100_003])
LAYOUTS = {
    "plain": lambda w: w.clone(),
    "channels last": lambda w: w.clone(memory_format=torch.channels_last),
    "exchanged": lambda w: w.clone().transpose(0, 1).contiguous().transpose(0, 1),
    "every other": lambda w: w.new_zeros(2 * len(w), *w.shape[1:])[::2].copy_(w),
    "part of a row": lambda w: w.new_zeros(*w.shape[:3], 5)[..., 1:4].copy_(w),
    "repeated": lambda w: w[:1].clone().expand_as(w),
}


def _number(weight: torch.Tensor) -> int | None:
    return content(weight).number


def flip(weight: torch.Tensor, place: int, bit: int) -> None:
    """One bit of one value of a weight that lies without gaps."""
    weight.data.view(torch.int32)[place] ^= torch.tensor(1 << bit).to(torch.int32)


@needs_kernels
@given(SIZES, st.data())
def test_a_single_bit_anywhere_is_seen(size, data):
    weight = torch.randn(size)
    place, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 31))
    before = content(weight)
    flip(weight, place, bit)
    after = content(weight, before)
    assert after.number != before.number
    assert content(weight, after) is after
    flip(weight, place, bit)
    assert content(weight, after) == before


@needs_kernels
@settings(max_examples=200)
@given(SIZES, st.data())
def test_changes_do_not_make_up_for_each_other(size, data):
    """A few bits of many values, alike and apart, as signs that are turned are, and of weights that are all alike."""
    weight = data.draw(st.sampled_from([torch.randn, torch.zeros, torch.ones]))(size)
    before, start = _number(weight), data.draw(st.integers(0, size - 1))
    apart, count = (
        data.draw(st.sampled_from([1, 2, 3, 8, 16, 128, 256, 16384])),
        data.draw(st.sampled_from([1, 2, 3, 4, 8, 32])),
    )
    bits = data.draw(st.lists(st.integers(0, 31), min_size=1, max_size=3, unique=True))
    for place, bit in itertools.product(range(start, size, apart)[:count], bits):
        flip(weight, place, bit)
    assert _number(weight) != before


@needs_kernels
def test_order_and_signs_count():
    weight = torch.randn(3 * 16384)
    seen = [
        _number(w) for w in (weight, -weight, weight.flip(0), weight.roll(16), weight.roll(128), weight.roll(16384))
    ]
    assert len(set(seen)) == len(seen)
    for size in (2, 4, 8, 16, 32, 64, 128, 256, 512, 8192, 32768):
        assert _number(torch.zeros(size)) != _number(-torch.zeros(size))
        assert _number(torch.ones(size)) != _number(-torch.ones(size))
    assert _number(torch.full((64,), torch.nan)) == _number(torch.full((64,), torch.nan))


@needs_kernels
def test_it_is_the_same_for_every_number_of_threads():
    weight, threads, seen = torch.randn(500_000), torch.get_num_threads(), set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            seen.add(_number(weight))
    finally:
        torch.set_num_threads(threads)
    assert len(seen) == 1


@needs_kernels
def test_what_lies_in_another_order_is_another():
    weight = torch.randn(16, 16, 3, 3)
    before = content(weight)
    weight.data = weight.data.transpose(0, 1)
    assert content(weight, before) is not before
    before = content(weight)
    weight.data = weight.data[:8]
    assert content(weight, before) is not before


def _one_value(w):
    w.data[1, 0, 0, 0] += 1


def _a_filter(w):
    w.data[0] = torch.randn_like(w[0])


def _a_step(w):
    w.data -= 0.1 * torch.randn_like(w)


def _other_memory(w):
    w.data = torch.randn_like(w)


def _numpy(w):
    w.detach().numpy()[-1] = 3


def _storage(w):
    w.data.untyped_storage().copy_(torch.randn_like(w).untyped_storage())


def _other_strides(w):
    w.data = w.data.flip(0) if w.shape[0] != w.shape[1] else w.data.transpose(0, 1)


def _an_operator(w):
    with torch.no_grad():
        w.mul_(-2)


CHANGES = [_one_value, _a_filter, _a_step, _other_memory, _numpy, _storage, _other_strides, _an_operator]
LAYERS = {
    "3x3": nn.Conv2d(32, 32, 3, padding=1),
    "depthwise": nn.Conv2d(32, 32, 3, groups=32),
    "groups of 4": nn.Conv2d(32, 32, 3, groups=8),
    "groups of 16": nn.Conv2d(32, 32, 3, groups=2),
    "1x1": nn.Conv2d(32, 32, 1, bias=False),
    "transposed": nn.ConvTranspose2d(32, 32, 2, 2),
    "separable": DepthwiseSeparableConv(32, 32, 3, padding=1),
    "flattened": FlattenedConv(32, 32, 3, padding=1),
    "two depthwise": nn.Sequential(*list(FlattenedConv(32, 32, 3, padding=1))[1:]),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_every_form_sees_every_change(layer, training):
    x = torch.randn(1, 32, 6, 7)
    for way in ways(layer, x, training=training):
        form = way.make()
        with torch.set_grad_enabled(training):
            for change in CHANGES:
                form(x)
                change(next(w for w in form.plain.parameters() if w.dim() == 4))
                close(form(x).detach(), form.plain(x).detach())


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("groups", [1, 32])
def test_weights_that_lie_in_another_order(make, groups):
    x, layer = torch.randn(1, 32, 6, 7), nn.Conv2d(32, 32, 3, groups=groups)
    for way in ways(layer, x, training=False):
        form = way.make()
        form.plain.weight.data = make(form.plain.weight.data)
        form.plain.bias.data = torch.randn(64)[::2]
        with torch.no_grad():
            close(form(x), form.plain(x))
            form.plain.weight.data[0, 0, 2, 1] = 7
            close(form(x), form.plain(x))


def test_weights_in_the_memory_of_numpy_and_those_of_inference():
    x, numbers = torch.randn(1, 32, 6, 6), np.random.default_rng(0).normal(size=(32, 32, 3, 3)).astype("float32")
    with torch.inference_mode():
        made = nn.Conv2d(32, 32, 3)
        for layer in (made, nn.Conv2d(32, 32, 3)):
            for way in ways(layer, x, training=False):
                form = way.make()
                form.plain.weight.data = torch.from_numpy(numbers)
                for _ in range(2):
                    numbers *= -1.5
                    close(form(x), form.plain(x))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_weights_of_another_size_or_dtype_are_left_to_the_layer(layer):
    x = torch.randn(1, 32, 6, 7)
    for way in ways(layer, x, training=False):
        form = way.make()
        first = next(part for part in form.plain.modules() if hasattr(part, "kernel_size"))
        with torch.no_grad():
            form(x)
            first.weight.data = torch.randn(*first.weight.shape[:2], 2, 2)
            if not isinstance(form, forms.Product):  # which keeps nothing, and says so itself
                close(form(x), form.plain(x))
            first.weight.data = first.weight.data.double()
            for other in (x, x[:, :16]):
                with pytest.raises(RuntimeError):
                    form(other)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    down, along = nn.Conv2d(32, 32, (3, 1), groups=32, bias=False), nn.Conv2d(32, 32, (1, 3), groups=32)
    parts = [nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, groups=32), nn.Conv2d(32, 32, 1)]
    return nn.Sequential(*parts, nn.Sequential(down, along), nn.Conv2d(32, 32, 3, groups=8))


def _forms(which: int) -> nn.Sequential:
    """The network in forms; which of those that each layer has."""
    made = nn.Sequential()
    for layer in _network():
        found = list(ways(layer, torch.zeros(1, 32, 9, 9), training=True))
        made.append(found[which % len(found)].make() if found else layer)
    return made


@pytest.mark.parametrize("which", [0, 1])
def test_an_old_loop_learns_what_an_optimiser_does(which):
    x, wanted = torch.randn(2, 32, 9, 9), torch.randn(2, 32, 3, 3)
    nets = {"data": _forms(which), "sgd": _forms(which), "plain": _network()}
    before = [w.detach().clone() for w in nets["plain"].parameters()]
    optimisers = {name: torch.optim.SGD(net.parameters(), lr=0.1) for name, net in nets.items()}
    for _ in range(6):
        for name, net in nets.items():
            net.zero_grad()
            (net(x) - wanted).square().mean().backward()
            if name != "data":
                optimisers[name].step()
                continue
            for p in net.parameters():
                p.data -= 0.1 * p.grad
    for old, a, b, c in zip(before, *(net.parameters() for net in nets.values()), strict=True):
        assert not torch.equal(a, old)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
        torch.testing.assert_close(a, c, rtol=0, atol=1e-5)


def test_without_compiled_kernels_what_is_made_of_weights_is_made_anew(monkeypatch):
    monkeypatch.setattr(told, "kernels", lambda: None)
    x, weight = torch.randn(1, 32, 6, 6), torch.zeros(1)
    assert content(weight, content(weight)).number is None
    pair = copy.deepcopy(LAYERS["two depthwise"])
    for form in (forms.Prepacked(nn.Conv2d(32, 32, 3), x), forms.MergedDepthwise(pair, "oneDNN")):
        with torch.no_grad():
            form(x)
            _one_value(next(form.plain.parameters()))
            close(form(x), form.plain(x))
