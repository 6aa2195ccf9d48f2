"""Every form gives what the plain layer gives, values and gradients, over random shapes and windows."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.graph import record
from convscope.inspect import summarize
from convscope.layers import DepthwiseSeparableConv, FlattenedConv, ShuffledGroupConv, SpatiallySeparableConv
from convscope.layers.fast import forms, operators
from convscope.layers.fast.compiled import After, Window, kernels
from convscope.layers.fast.operators import conv2d, pack
from convscope.layers.fast.packing import pack_grouped, pack_tiles, unpack_grouped
from convscope.layers.fast.ways import stack, ways
from sameness import close, same

FEW = settings(max_examples=15)
SIZES = st.tuples(st.integers(1, 3), st.integers(7, 20), st.integers(7, 20))


def pairs(low: int, high: int):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@FEW
@given(SIZES, st.data())
def test_convolutions(size, data):
    groups, per = data.draw(st.sampled_from([(1, 32), (2, 32), (4, 8), (8, 4), (12, 2), (24, 1), (64, 1)]))
    kernel = data.draw(st.sampled_from([(3, 3), (3, 1), (1, 3), (5, 4), (1, 1), (9, 10)]))
    window = {"stride": data.draw(pairs(1, 2)), "dilation": data.draw(pairs(1, 2)), "padding": data.draw(pairs(0, 3))}
    n, *hw = size
    hw = [max(s, d * (k - 1) + 1) for s, k, d in zip(hw, kernel, window["dilation"], strict=True)]
    conv = nn.Conv2d(groups * per, groups * per, kernel, groups=groups, bias=data.draw(st.booleans()), **window)
    same(conv, torch.randn(n, groups * per, *hw))


@pytest.mark.parametrize("groups", [32, 16, 8, 4])
@pytest.mark.parametrize("padding", [0, 1, (2, 0), (0, 2), 3])
def test_patches_of_whatever_rows_are_left(groups, padding):
    conv = nn.Conv2d(32, 32, 3, padding=padding, groups=groups)
    for size in ((3, 3), (4, 6), (5, 4), (6, 9), (7, 16), (11, 5)):
        assert "own kernel" in same(conv, torch.randn(3, 32, *size))


@pytest.mark.parametrize("window", [{}, {"stride": 1}, {"dilation": 2}, {"padding": 1}, {"stride": (1, 3)}])
def test_the_largest_of_four(window):
    for size in ((3, 3), (8, 6), (5, 10)):
        assert "own kernel" in same(nn.MaxPool2d(2, **window), torch.randn(3, 20, *size))


@FEW
@given(SIZES, pairs(1, 3), st.data())
def test_poolings(size, stride, data):
    n, *hw = size
    kernel = data.draw(pairs(1, 4))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    x = torch.randn(n, data.draw(st.sampled_from([4, 8, 20])), *hw)
    same(nn.MaxPool2d(kernel, stride, padding, dilation=data.draw(pairs(1, 2))), x)
    same(nn.AvgPool2d(kernel, stride, padding), x)
    same(nn.AvgPool2d(kernel, stride, padding, divisor_override=5), x)
    assert same(nn.AvgPool2d(3, padding=1, count_include_pad=False), x) == set()
    assert same(nn.AvgPool2d(3, ceil_mode=True), x) == set()


@settings(max_examples=10)
@given(SIZES, st.sampled_from([FlattenedConv, DepthwiseSeparableConv, SpatiallySeparableConv]), st.booleans())
def test_stacks_of_the_family(size, make, bias):
    n, *hw = size
    layer = make(16, 32, 3, padding=1, bias=bias)
    same(layer, torch.randn(n, 16, *hw))
    for part in stack(layer):
        if isinstance(part, nn.Sequential):
            assert "as one depthwise convolution" in same(part, torch.randn(n, 32, *hw))


def test_the_parts_of_a_layer_are_the_layer():
    x = torch.randn(2, 16, 9, 9)
    layers = [make(16, 32, 3, padding=1) for make in (FlattenedConv, DepthwiseSeparableConv, SpatiallySeparableConv)]
    for layer in [*layers, ShuffledGroupConv(16, 32, 3, groups=4)]:
        close(nn.Sequential(*stack(layer))(x).detach(), layer(x).detach())
    assert stack(nn.Conv2d(1, 1, 1)) == []


def test_depthwise_convolutions_merge_whatever_their_idle_dilations():
    first = nn.Conv2d(8, 8, (3, 1), padding=(2, 0), dilation=(2, 3), groups=8, bias=False)
    second = nn.Conv2d(8, 8, (1, 3), padding=(0, 1), stride=(1, 2), groups=8)
    words = same(nn.Sequential(first, second), torch.randn(2, 8, 11, 12))
    assert "as one depthwise convolution" in words


def test_a_bias_or_padding_between_is_not_merged_away():
    x = torch.randn(2, 8, 11, 12)
    biased = nn.Sequential(nn.Conv2d(8, 8, (3, 1), groups=8), nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=8))
    padded = nn.Sequential(
        nn.Conv2d(8, 8, (3, 1), groups=8, bias=False), nn.Conv2d(8, 8, (1, 3), padding=1, groups=8, bias=False)
    )
    for layer in (biased, padded):
        assert not any("depthwise" in words for words in same(layer, x))


def test_changed_weights_are_seen():
    x = torch.randn(1, 32, 9, 9)
    layer = nn.Conv2d(32, 32, 3, padding=1)
    for way in ways(layer, x, training=False):
        form = way.make()
        with torch.no_grad():
            form(x)
            form.plain.weight.mul_(-2)
            form.plain.bias.zero_()
            close(form(x), form.plain(x))


def test_other_inputs_are_left_to_the_layer():
    layer = nn.Conv2d(16, 16, 3, padding=1, groups=16)
    x = torch.randn(2, 16, 8, 8)
    for way in ways(layer, x, training=True):
        form = way.make()
        assert form(x[0]).shape == (16, 8, 8)
        with torch.autocast("cpu", torch.bfloat16):
            assert form(x).dtype == torch.bfloat16
        close(form.double()(x.double()).detach(), layer.double()(x.double()).detach())


LAYERS = {
    "3x3": nn.Conv2d(32, 32, 3, padding=1),
    "depthwise": nn.Conv2d(32, 32, 3, groups=32),
    "1x1": nn.Conv2d(32, 32, 1),
    "groups": nn.Conv2d(32, 32, 3, groups=2),
    "transposed": nn.ConvTranspose2d(32, 32, 2, 2),
    "largest": nn.MaxPool2d(2),
    "mean": nn.AvgPool2d(2),
    "separable": DepthwiseSeparableConv(32, 32, 3, padding=1),
    "flattened": FlattenedConv(32, 32, 3, padding=1),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_form_that_was_cast_is_the_layer_that_was(layer):
    x = torch.randn(1, 32, 8, 8)
    for way in ways(layer, x, training=False):
        form, plain = way.make(), copy.deepcopy(layer)
        with torch.no_grad():
            form(x)
            close(form.bfloat16()(x.bfloat16()).float(), plain.bfloat16()(x.bfloat16()).float(), torch.bfloat16)
            if [*layer.parameters()]:
                with pytest.raises(RuntimeError, match="type"):
                    form(x)
            if way.words != "as one dense convolution":  # whose rounded weights are not those of its parts
                close(form.float()(x), plain.float()(x))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_copies_of_a_form_have_weights_of_their_own(layer):
    x = torch.randn(1, 32, 8, 8)
    for way in ways(layer, x, training=False):
        form = way.make()
        with torch.no_grad():
            wanted = form(x)
            for other in (copy.deepcopy(form), pickle.loads(pickle.dumps(form))):
                close(other(x), wanted)
                for _ in range(3):  # one of them is as many changes as the form's own weights have seen
                    for weight in other.parameters():
                        weight.mul_(-1.5)
                    close(other(x), other.plain(x))
                    close(form(x), wanted)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_a_form_computes(layer):
    x = torch.randn(1, 32, 8, 8)
    for way in ways(layer, x, training=False):
        with torch.no_grad():
            traced = torch.jit.trace(way.make(), torch.zeros_like(x), check_trace=False)
            close(traced(x), layer(x))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_batch_without_a_picture_stays_one(layer):
    x = torch.randn(1, 32, 8, 8)
    wanted = layer(x[:0]).shape
    for training in (False, True):
        for way in ways(layer, x, training=training):
            form, empty = way.make(), x[:0].clone().requires_grad_()
            with torch.inference_mode():
                assert form(empty).shape == wanted
            if training:
                form(empty).sum().backward()
                assert empty.grad.shape == empty.shape
                assert not any(weight.grad.any() for weight in form.parameters())


def test_bfloat16_is_within_its_tolerance():
    x = torch.randn(2, 16, 8, 8)
    layer = nn.Conv2d(16, 16, 3)
    found = forms.Bfloat16(copy.deepcopy(layer))(x)
    assert found.dtype == torch.float32
    close(found.detach(), layer(x).detach(), torch.bfloat16)


needs_kernels = pytest.mark.skipif(kernels() is None, reason="no compiler, so no kernels of our own")


@needs_kernels
def test_the_largest_is_pytorchs_with_nan_and_infinity():
    x = torch.randn(1, 4, 6, 6)
    x[0, 0, 2, 2], x[0, 1, 3, 3], x[0, 2] = float("nan"), float("inf"), -float("inf")
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    torch.testing.assert_close(forms.MaxPool(pool)(x), pool(x), equal_nan=True, rtol=0, atol=0)


@needs_kernels
@pytest.mark.parametrize("way", ["grouped", "winograd"])
def test_the_operators_keep_pytorchs_rules(way):
    groups = 32 if way == "grouped" else 1
    x = torch.randn(1, 32, 7, 7)
    w = torch.randn(32, 32 // groups, 3, 3)
    args = (x, w, torch.randn(32), Window(3, 3, 1, 1, 1, 1, 1, 1), groups, way)
    torch.library.opcheck(torch.ops.convscope.conv2d.default, args, test_utils=("test_schema", "test_faketensor"))


def test_a_form_is_recorded_as_the_layer_that_it_runs():
    """A recording without values takes the plain layer's way, whose MACs are known."""
    x, layer = torch.randn(1, 32, 6, 6), nn.Conv2d(32, 32, 3)
    wanted = summarize(record(layer, x)).total.macs
    assert wanted == 32 * 32 * 9 * 16
    for way in ways(layer, x, training=False):
        assert summarize(record(way.make(), x)).total.macs == wanted


@needs_kernels
def test_gradients_of_many_tiles_add_up():
    x, layer = torch.randn(4, 32, 50, 47), nn.Conv2d(32, 32, 3, padding=1)
    assert "own kernel, Winograd" in same(layer, x)


@needs_kernels
@settings(max_examples=8)
@given(SIZES, st.data())
def test_gradients_of_large_depthwise_kernels(size, data):
    """By Fourier transforms, whatever the padding; the tolerance is that of all forms."""
    kernel = data.draw(pairs(9, 13))
    n, *hw = size
    hw = [max(s, k) for s, k in zip(hw, kernel, strict=True)]
    layer = nn.Conv2d(16, 16, kernel, padding=data.draw(pairs(0, 8)), groups=16)
    assert "own kernel" in same(layer, torch.randn(n, 16, *hw))


@needs_kernels
@pytest.mark.parametrize("way", ["grouped", "winograd"])
def test_gradients_of_gradients_are_pytorchs(way):
    layer = nn.Conv2d(32, 32, 3, padding=1, groups=32 if way == "grouped" else 1)
    form, x = forms.Compiled(copy.deepcopy(layer), way), torch.randn(1, 32, 5, 5)
    for module in (layer, form):
        given_x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(module(given_x).square().sum(), given_x, create_graph=True)
        slope.square().sum().backward()
        module.second = given_x.grad
    close(form.second, layer.second)


@needs_kernels
@FEW
@given(st.sampled_from([(16, 1), (8, 2), (4, 4), (4, 8), (5, 4)]), st.sampled_from([1, 2]), pairs(1, 2), st.data())
def test_gradients_of_weights_in_groups_of_few_channels(groups_per, stride, dilation, data):
    """Rows of every length: those that fill no run of outputs, those that meet both borders, those with room."""
    groups, per = groups_per
    window = {"stride": stride, "dilation": dilation, "padding": data.draw(pairs(0, 2))}
    conv = nn.Conv2d(
        groups * per, groups * per, data.draw(st.sampled_from([3, (2, 3), (3, 1)])), groups=groups, **window
    )
    assert "own kernel" in same(conv, torch.randn(2, groups * per, 6, data.draw(st.integers(5, 30))))


@needs_kernels
def test_weights_are_unpacked_as_they_were_packed():
    weight = torch.randn(32, 4, 3, 5)
    assert torch.equal(unpack_grouped(pack_grouped(weight, lanes=16)), weight)


@pytest.mark.parametrize("bias", [True, False])
def test_a_pointwise_convolution_is_a_product_of_matrices(bias):
    assert "as a product of matrices" in same(nn.Conv2d(12, 20, 1, bias=bias), torch.randn(2, 12, 5, 7))
    for other in (nn.Conv2d(12, 12, 1, stride=2), nn.Conv2d(12, 12, 1, groups=2), nn.Conv2d(12, 12, 1, padding=1)):
        assert "as a product of matrices" not in same(other, torch.randn(2, 12, 5, 7))


@needs_kernels
@pytest.mark.parametrize("way", ["grouped", "winograd"])
def test_the_operator_has_the_gradients_of_the_function(way):
    """Where somebody listens, the operator is called; else a function of autograd is."""
    layer = nn.Conv2d(32, 32, 3, padding=1, groups=32 if way == "grouped" else 1)
    x = torch.randn(2, 32, 7, 9, requires_grad=True)
    given = (x, layer.weight, layer.bias, forms.window_of(layer), layer.groups, way)
    found, wanted = (
        torch.autograd.grad(run(*given).square().sum(), given[:3]) for run in (torch.ops.convscope.conv2d, conv2d)
    )
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@needs_kernels
def test_packed_weights_go_with_their_tensor():
    weight, x = torch.randn(16, 1, 3, 3), torch.randn(1, 16, 5, 5)
    kept = operators._PACKED._kept
    with torch.no_grad():
        conv2d(x, weight, None, Window(3, 3, 1, 1, 1, 1, 1, 1), 16, "grouped")
    assert id(weight) in kept
    at = id(weight)
    del weight
    assert at not in kept


FOUND = kernels()
needs_tiles = pytest.mark.skipif(FOUND is None or not FOUND.tiles, reason="no products of bfloat16 in tiles here")


@needs_tiles
@settings(max_examples=6)
@given(st.integers(1, 5), st.integers(1, 40), st.sampled_from([32, 64]), st.sampled_from([32, 96]), st.booleans())
def test_products_in_tiles(h, w, channels, outs, bias):
    """Pixels that fill tiles, and those that do not."""
    x = torch.randn(3, channels, h, w)
    assert "own kernel, in tiles" in same(nn.Conv2d(channels, outs, 1, bias=bias), x)
    separable = DepthwiseSeparableConv(channels, outs, 3, padding=1, bias=bias)
    assert "own kernel, both in one pass, in tiles" in same(separable, x)
    assert "own kernel, all in one pass, in tiles" in same(FlattenedConv(channels, outs, 3, padding=1, bias=bias), x)
    assert "own kernel, in tiles" not in {way.words for way in ways(nn.Conv2d(48, 32, 1), x, training=False)}


@needs_tiles
@settings(max_examples=10)
@given(SIZES, st.sampled_from([1, 3]), st.sampled_from([3, (1, 4), (5, 1), (7, 2), 1]), st.booleans(), st.data())
def test_convolutions_in_tiles(size, groups, kernel, bias, data):
    """Bands of rows, borders, and rows of pixels that fill no tile."""
    n, h, w = size
    window = {"stride": data.draw(pairs(1, 3)), "padding": data.draw(pairs(0, 3)), "dilation": data.draw(pairs(1, 2))}
    conv = nn.Conv2d(32 * groups, 64 * groups, kernel, groups=groups, bias=bias, **window)
    assert "own kernel, in tiles" in same(conv, torch.randn(n, 32 * groups, h + 7, 2 * w + 7))


@needs_tiles
def test_a_picture_of_many_bands_in_tiles():
    assert "own kernel, in tiles" in same(nn.Conv2d(64, 32, 3, padding=1), torch.randn(1, 64, 90, 70))


ACTED = [lambda y: y, F.silu, torch.sigmoid, F.hardswish, F.hardsigmoid]
AROUND = st.tuples(st.sampled_from(ACTED), st.booleans(), st.booleans())


@needs_tiles
@settings(max_examples=25, deadline=None)
@given(SIZES, st.sampled_from([1, 2, 3]), st.sampled_from([(1, 1), (3, 3), (2, 5)]), AROUND, st.data())
def test_what_is_done_after_products_in_tiles(size, groups, kernel, around, data):
    """A bias, another array, an activation, bounds: as a network that is fused has them."""
    (n, h, w), (acted, biased, bounded) = size, around
    pairs_of = [data.draw(pairs(*of)) for of in ((1, 2), (0, 2), (1, 2))]
    x, weight = torch.randn(n, 32 * groups, h, w + 2), torch.randn(64 * groups, 32, *kernel)
    x, bias = x.contiguous(memory_format=torch.channels_last), torch.randn(len(weight)) if biased else None
    found = F.conv2d(x, weight, bias, *pairs_of, groups)
    other = torch.randn_like(found).contiguous(memory_format=torch.channels_last)
    low, high = (-0.5, 2.0) if bounded else (-float("inf"), float("inf"))
    after = After(bias, other, low, high, ACTED.index(acted))
    window = Window(*kernel, *(value for pair in pairs_of for value in pair))
    ours = operators.there().tiled(x, pack("tiles", weight, groups=groups), after, window, groups)
    scale = float(found.abs().max())
    torch.testing.assert_close(ours / scale, acted(found + other).clamp(low, high) / scale, rtol=0, atol=2e-5)


@needs_tiles
def test_other_libraries_find_their_tiles_as_they_left_them():
    """oneDNN remembers how it set the tiles of a thread, and does not set them again."""
    conv, x = nn.Conv2d(64, 64, 3).bfloat16(), torch.randn(1, 64, 12, 12).bfloat16()
    form, y = forms.Compiled(nn.Conv2d(32, 32, 1), "tiles"), torch.randn(1, 32, 8, 8)
    with torch.no_grad():
        first = conv(x)
        for _ in range(3):
            form(y)
            assert torch.equal(conv(x), first)


def test_two_parts_of_bfloat16_are_nearly_the_weights():
    packed = pack_tiles(torch.randn(64, 96))
    assert packed.shape == (2, 3, 2, 2, 16, 16, 2)
    w = torch.arange(64 * 96.0).reshape(64, 96) / 7
    larger, smaller = pack_tiles(w).permute(2, 0, 3, 5, 1, 4, 6).reshape(2, 64, 96).float()
    assert (larger - w).abs().max() > 1  # what a bfloat16 leaves out
    torch.testing.assert_close(larger + smaller, w, rtol=2**-16, atol=0)
