"""The family's layers: the numbers they are known for, what they compute, and what a user does with a layer."""

import copy
import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import convscope
from convscope.errors import InputError
from convscope.layers import (
    DepthwiseSeparableConv,
    FlattenedConv,
    ShuffledGroupConv,
    SpatiallySeparableConv,
    channel_shuffle,
    conv_reference,
    named_kernel,
    shuffle_reference,
)

FAMILY: dict[str, Callable[..., nn.Module]] = {
    "spatial": SpatiallySeparableConv,
    "depthwise": DepthwiseSeparableConv,
    "flattened": FlattenedConv,
    "shuffled": lambda *args, **options: ShuffledGroupConv(*args, **{"groups": 2} | options),
}
members = pytest.mark.parametrize("make", FAMILY.values(), ids=FAMILY)
every_ndim = pytest.mark.parametrize("ndim", [1, 2, 3])


def costs(model: nn.Module, *shape: int) -> tuple[int, int]:
    """Parameters and MACs as `summarize` counts them; nothing may be left unknown."""
    total = convscope.summarize(convscope.record(model, torch.zeros(shape))).total
    assert total.unknown == ()
    assert total.params == sum(p.numel() for p in model.parameters())
    return total.params, total.macs


# The numbers that they are known for


def test_depthwise_separable_136_in_place_of_576():
    places = 10 * 12
    cheap = DepthwiseSeparableConv(8, 8, 3, padding="same", bias=False)
    assert [p.numel() for p in cheap.parameters()] == [72, 64]
    assert costs(nn.Conv2d(8, 8, 3, padding=1, bias=False), 1, 8, 10, 12) == (576, 576 * places)
    assert costs(cheap, 1, 8, 10, 12) == (136, 136 * places)


def test_flattened_adds_where_dense_multiplies():
    c, x, y, m, n = 5, 3, 7, 9, 11
    flat = FlattenedConv(c, 1, (x, y), padding="same", bias=False)
    assert costs(nn.Conv2d(c, 1, (x, y), padding=(1, 3), bias=False), 1, c, m, n) == (x * y * c, m * n * c * x * y)
    assert costs(flat, 1, c, m, n) == (x + y + c, m * n * (c + x + y))


def test_sobel_is_six_weights_in_place_of_nine():
    column, row = torch.tensor([1.0, 2, 1]), torch.tensor([-1.0, 0, 1])
    pair = SpatiallySeparableConv(1, 1, 3, bias=False)
    with torch.no_grad():
        pair[0].weight.copy_(column.reshape(1, 1, 3, 1))
        pair[1].weight.copy_(row.reshape(1, 1, 1, 3))
    assert costs(pair, 1, 1, 8, 8)[0] == 6 < named_kernel("sobel-x").numel() == 9
    picture = torch.arange(64.0).square().reshape(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(pair(picture), F.conv2d(picture, named_kernel("sobel-x")[None, None]))


def test_three_small_kernels_see_what_a_large_one_sees():
    c = 4
    three = nn.Sequential(*(nn.Conv2d(c, c, 3, bias=False) for _ in range(3)))
    one = nn.Conv2d(c, c, 7, bias=False)
    assert costs(three, 1, c, 7, 7)[0] == 27 * c**2
    assert costs(one, 1, c, 7, 7) == (49 * c**2, 49 * c**2)
    for model in (three, one):
        last = convscope.summarize(convscope.record(model, torch.zeros(1, c, 7, 7))).operators[-1]
        assert last.receptive_field is not None
        assert last.receptive_field["size"] == (7, 7)


@pytest.mark.parametrize(
    ("layer", "size", "out"),
    [
        (nn.Conv2d(1, 1, 3, dilation=2), 7, (3, 3)),
        (nn.ConvTranspose2d(1, 1, 3), 2, (4, 4)),
        (SpatiallySeparableConv(1, 1, 3, dilation=2), 7, (3, 3)),
        (DepthwiseSeparableConv(1, 1, 3, dilation=2), 7, (3, 3)),
        (FlattenedConv(1, 1, 3, dilation=2), 7, (3, 3)),
        (ShuffledGroupConv(1, 1, 3, dilation=2, groups=1), 7, (3, 3)),
    ],
)
def test_dilated_and_transposed_sizes(layer, size, out):
    rows = convscope.summarize(convscope.record(layer, torch.zeros(1, 1, size, size))).operators
    assert rows[-1].output_shape == (1, 1, *out)


def test_shared_weights_against_one_weight_for_each_pair():
    assert costs(nn.Conv2d(3, 10, 5), 1, 3, 32, 32)[0] == 760
    dense = nn.Linear(1000 * 1000, 1000 * 1000, bias=False, device="meta")
    total = convscope.summarize(convscope.record(dense, torch.zeros(1, 10**6, device="meta"))).total
    assert (total.params, total.macs) == (10**12, 10**12)


def test_as_many_maps_come_out_as_there_are_kernels_with_the_channels_of_the_input():
    x = torch.zeros(1, 4, 12, 9)  # RGBA
    two = nn.Sequential(nn.Conv2d(4, 32, (5, 3)), nn.Conv2d(32, 128, (5, 3)))
    for layer, shapes in ((nn.Conv2d(4, 1, 3), [(1, 1, 10, 7)]), (two, [(1, 32, 8, 7), (1, 128, 4, 5)])):
        rows = convscope.summarize(convscope.record(layer, x)).operators
        assert [row.output_shape for row in rows] == shapes
    assert [(tuple(c.weight.shape), len(c.bias)) for c in two] == [((32, 4, 5, 3), 32), ((128, 32, 5, 3), 128)]


def test_groups_divide_the_cost():
    dense, grouped = (costs(ShuffledGroupConv(8, 8, 3, groups=g, bias=False), 1, 8, 6, 6) for g in (1, 4))
    assert dense == (4 * grouped[0], 4 * grouped[1])


# What they compute


@given(groups=st.integers(1, 4), each=st.integers(1, 4), ndim=st.integers(0, 3), last=st.booleans())
def test_shuffle_is_its_definition_and_torchs(groups, each, ndim, last):
    shape = (2, groups * each, *(3, 2, 4)[:ndim])
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    y = channel_shuffle(x, groups=groups)
    assert np.array_equal(y.numpy(), shuffle_reference(x.numpy(), groups=groups))
    if ndim:
        assert torch.equal(y, F.channel_shuffle(x, groups))
    assert torch.equal(channel_shuffle(y, groups=each), x)  # shuffling by the other factor puts them back


def test_two_shuffled_convolutions_let_every_group_see_every_channel():
    def channels_seen(first: nn.Module) -> int:
        x = torch.randn(1, 4, 3, requires_grad=True)
        (slope,) = torch.autograd.grad(nn.Conv1d(4, 4, 1, groups=2)(first(x))[0, 0].sum(), x)
        return int((slope[0, :, 0] != 0).sum())

    assert channels_seen(nn.Conv1d(4, 4, 1, groups=2)) == 2
    assert channels_seen(ShuffledGroupConv(4, 4, 1, groups=2, ndim=1)) == 4


@given(data=st.data(), ndim=st.integers(1, 3), name=st.sampled_from(sorted(FAMILY)))
def test_a_layer_is_its_convolutions_by_definition(data, ndim, name):
    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim)))

    options = {"stride": each(1, 2), "padding": each(0, 2), "dilation": each(1, 2)}
    layer = FAMILY[name](2, 4, each(1, 3), **options, bias=data.draw(st.booleans()), ndim=ndim, dtype=torch.float64)
    x = torch.randn(1, 2, *[5] * ndim, dtype=torch.float64)
    y = x.numpy()
    for conv in (m for m in layer.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)):
        bias = None if conv.bias is None else conv.bias.detach().numpy()
        window = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "groups": conv.groups}
        y = conv_reference(y, conv.weight.detach().numpy(), bias_O=bias, **window)
    if name == "shuffled":
        y = shuffle_reference(y, groups=2)
    np.testing.assert_allclose(layer(x).detach().numpy(), y, atol=1e-12)


@members
@every_ndim
def test_the_output_has_the_size_of_the_dense_one(make, ndim):
    options = {"stride": 2, "padding": 3, "dilation": 2}
    dense = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim](4, 6, 3, **options)
    x = torch.zeros(2, 4, *(8, 9, 7)[:ndim])
    assert make(4, 6, 3, **options, ndim=ndim)(x).shape == dense(x).shape


@members
@every_ndim
def test_one_picture_without_the_axis_of_pictures(make, ndim):
    layer, x = make(4, 4, 3, padding=1, ndim=ndim), torch.randn(4, *[4] * ndim)
    torch.testing.assert_close(layer(x), layer(x[None])[0])


@members
@every_ndim
def test_gradients(make, ndim):
    layer = make(2, 2, 3, stride=2, padding=1, ndim=ndim, dtype=torch.float64)
    x = torch.randn(1, 2, *(4, 3, 3)[:ndim], dtype=torch.float64, requires_grad=True)
    names, weights = zip(*layer.named_parameters(), strict=True)

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert len(names) >= 2
    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=ndim > 1)


@members
def test_a_new_stack_hands_on_as_much_variance_as_one_layer(make):
    torch.manual_seed(0)
    x = torch.randn(4, 32, 24, 24)
    dense, stack = nn.Conv2d(32, 32, 3, bias=False), make(32, 32, 3, bias=False)
    assert 0.5 < (stack(x).var() / dense(x).var()).item() < 2


# What a user does with a layer


def test_three_axes_have_a_third_key():
    spatial, flat = SpatiallySeparableConv(2, 2, 3, ndim=3, bias=False), FlattenedConv(2, 2, 3, ndim=3, bias=False)
    assert list(spatial.state_dict()) == ["axis0.weight", "axis1.weight", "axis2.weight"]
    assert list(flat.state_dict()) == ["across.weight", "down.weight", "along.weight", "through.weight"]


@members
def test_copied_pickled_and_loaded_layers_are_the_same(make):
    layer, x = make(4, 4, 3), torch.randn(1, 4, 5, 5)
    expected = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), expected)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = make(4, 4, 3)
    assert not torch.equal(other(x), expected)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), expected)


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ShuffledGroupConv(8, 8, 1, groups=3),
            "ShuffledGroupConv: groups is 3; 8 channels divide into 1, 2, 4, 8",
        ),
        (
            lambda: ShuffledGroupConv(8, 6, 1, groups=4),
            "ShuffledGroupConv: groups is 4; 6 channels divide into 1, 2, 3, 6",
        ),
        (
            lambda: SpatiallySeparableConv(4, 4, 3, groups=0),
            "SpatiallySeparableConv: groups is 0; 4 channels divide into 1, 2, 4",
        ),
        (
            lambda: channel_shuffle(torch.zeros(1, 6), groups=4),
            "channel_shuffle: groups is 4; 6 channels divide into 1, 2, 3, 6",
        ),
        (
            lambda: DepthwiseSeparableConv(4, 4, (3, 4), padding="same"),
            "DepthwiseSeparableConv: padding is 'same' but kernel_size is (3, 4), which would need unequal ends; "
            "use odd sizes, or padding in numbers",
        ),
        (
            lambda: FlattenedConv(4, 4, 3, padding="same", stride=2),
            "FlattenedConv: padding is 'same' but stride is (2, 2); use stride 1, or padding in numbers",
        ),
        (
            lambda: FlattenedConv(4, 4, 3, padding="full"),
            "FlattenedConv: padding is 'full'; use a number, 'same' or 'valid'",
        ),
        (lambda: FlattenedConv(4, 4, 3, dilation=0), "FlattenedConv: dilation is 0; use 1 or more"),
        (lambda: FlattenedConv(4, 4, 3, stride=(1, 0)), "FlattenedConv: stride is (1, 0); use 1 or more"),
        (lambda: FlattenedConv(4, 4, 3, padding=-1), "FlattenedConv: padding is -1; use 0 or more"),
        (lambda: FlattenedConv(4, 4, 3, stride=1.5), "FlattenedConv: stride is 1.5; use whole numbers"),
        (lambda: FlattenedConv(4, 4, "33"), "FlattenedConv: kernel_size is '33'; use whole numbers"),
        (lambda: FlattenedConv(4, 4, 0), "FlattenedConv: kernel_size is 0; use 1 or more"),
        (
            lambda: FlattenedConv(4, 4, (3, 3, 3)),
            "FlattenedConv: kernel_size is (3, 3, 3); give one number, or one for each of the 2 spatial axes",
        ),
        (
            lambda: DepthwiseSeparableConv(4, 4, 3, stride=(1, 1), ndim=1),
            "DepthwiseSeparableConv: stride is (1, 1); give one number, or one for the one spatial axis",
        ),
        (lambda: FlattenedConv(4, 4, 3, ndim=4), "FlattenedConv: ndim is 4; use 1, 2 or 3"),
        (lambda: FlattenedConv(0, 4, 3), "FlattenedConv: in_channels is 0; use 1 or more"),
        (
            lambda: DepthwiseSeparableConv(4, 4, 3, depth_multiplier=0),
            "DepthwiseSeparableConv: depth_multiplier is 0; use 1 or more",
        ),
        (
            lambda: SpatiallySeparableConv(4, 4, 3, hidden_channels=-2),
            "SpatiallySeparableConv: hidden_channels is -2; use 1 or more",
        ),
    ],
)
def test_bad_input_names_the_parameter_its_value_and_what_fits(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


@members
def test_an_unknown_argument_is_refused(make):
    with pytest.raises(TypeError, match="unexpected keyword argument 'strides'"):
        make(4, 4, 3, strides=2)


def test_valid_padding_is_none():
    assert SpatiallySeparableConv(1, 1, 3, padding="valid")(torch.zeros(1, 1, 5, 5)).shape == (1, 1, 3, 3)


def test_a_printed_shuffled_convolution_says_its_groups():
    assert "groups=2" in repr(ShuffledGroupConv(4, 4, 1, groups=2)).splitlines()[1]
