"""expand(): one dense kernel for a stack, held against what the stack computes, and refused where there is none."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.errors import InputError
from convscope.layers import (
    ConvNormAct,
    DepthwiseSeparableConv,
    FlattenedConv,
    ShuffledGroupConv,
    SpatiallySeparableConv,
    expand,
)
from convscope.layers.family import CONVS, maker

FAMILY = (SpatiallySeparableConv, DepthwiseSeparableConv, FlattenedConv, ShuffledGroupConv)


def each(data, ndim: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(data.draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim)))


def same(layer: nn.Module, ndim: int, channels: int) -> nn.Module:
    dense = expand(layer, ndim=ndim)
    assert type(dense) is CONVS[ndim]
    assert dense.groups == 1
    size = (15, 16, 17) if ndim == 3 else (31, 32)[:ndim]
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    torch.testing.assert_close(dense(x), layer(x), atol=1e-10, rtol=1e-10)
    return dense


@settings(max_examples=40)
@given(data=st.data(), ndim=st.integers(1, 3), depth=st.integers(1, 3))
def test_any_stack_padded_in_front_is_one_convolution(data, ndim, depth):
    depth = min(depth, 2) if ndim == 3 else depth
    widths = [data.draw(st.sampled_from([2, 4])) for _ in range(depth + 1)]
    stack = nn.Sequential()
    for i in range(depth):
        padding = each(data, ndim, 0, 2) if i == 0 else 0
        window = (each(data, ndim, 1, 3), each(data, ndim, 1, 2), padding, each(data, ndim, 1, 2))
        groups, bias = data.draw(st.integers(1, 2)), data.draw(st.booleans())
        stack.append(maker(ndim)(widths[i], widths[i + 1], *window, groups, bias, dtype=torch.float64))
        if data.draw(st.booleans()):
            stack.append(nn.ChannelShuffle(2))
    same(stack, ndim, widths[0])


@settings(max_examples=40)
@given(data=st.data(), ndim=st.integers(1, 3), make=st.sampled_from(FAMILY))
def test_every_member_is_one_convolution_with_any_padding(data, ndim, make):
    size, stride = each(data, ndim, 1, 3), each(data, ndim, 1, 2)
    padding, dilation = each(data, ndim, 0, 3), each(data, ndim, 1, 2)
    more = {"groups": 2} if make in (ShuffledGroupConv, SpatiallySeparableConv) else {}
    options = {"stride": stride, "padding": padding, "dilation": dilation, "bias": data.draw(st.booleans())}
    dense = same(make(4, 6, size, **options, **more, ndim=ndim, dtype=torch.float64), ndim, 4)
    assert (dense.kernel_size, dense.stride, dense.padding) == (size, stride, padding)
    assert all(d == e for d, e, k in zip(dense.dilation, dilation, size, strict=True) if k > 1)


def test_padding_behind_full_padding_is_zero_padding_of_the_whole():
    options = {"bias": False, "dtype": torch.float64}
    stack = nn.Sequential(nn.Conv1d(1, 1, 3, stride=2, padding=2, **options), nn.Conv1d(1, 1, 2, padding=3, **options))
    dense = same(stack, 1, 1)
    assert (dense.kernel_size, dense.stride, dense.padding) == ((5,), (2,), (8,))


def test_a_dense_convolution_is_itself_in_its_dtype_and_groups_become_zeros():
    conv = nn.Conv2d(4, 6, 3, stride=2, padding="valid", dilation=2)
    dense = expand(conv, ndim=2)
    assert torch.equal(dense.weight, conv.weight)
    assert torch.equal(dense.bias, conv.bias)
    half = expand(nn.Sequential(nn.Identity(), nn.Conv2d(4, 4, 1, groups=4, dtype=torch.bfloat16)), ndim=2)
    assert half.weight.dtype == torch.bfloat16
    assert int((half.weight != 0).sum()) == 4


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.Conv2d(1, 1, 3, padding=1)),
            "expand: 1 pads axis 0 by 1 between layers, where the layers before it, 3 wide and padded by 0, would not "
            "give zeros; pad in the first layer",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, padding=(0, 1))),
            "expand: 1 pads by (0, 1) behind a bias, and a padded zero is not that bias; pad in the first layer, or "
            "leave the bias to the last",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()),
            "expand: 1 is ReLU; only a stack of convolutions and channel shuffles is one convolution; "
            "take it out of the stack",
        ),
        (
            nn.Sequential(ConvNormAct(1, 1, 3)),
            "expand: 0.norm is BatchNorm2d; only a stack of convolutions and channel shuffles is one convolution; "
            "take it out of the stack",
        ),
        (
            nn.ConvTranspose2d(1, 1, 3),
            "expand: the layer is ConvTranspose2d; a transposed convolution has no kernel that slides; "
            "take it out of the stack",
        ),
        (nn.Conv1d(1, 1, 3), "expand: the layer is Conv1d; its number of axes is not ndim=2"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(3, 1, 1)),
            "expand: 1 takes 3 channels but gets 2 from the one before; give layers that fit",
        ),
        (
            nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"),
            "expand: the layer has padding_mode='reflect'; only zeros are linear in the input",
        ),
        (
            nn.Conv2d(1, 1, 2, padding="same"),
            "expand: the layer has padding='same' with kernel_size=(2, 2), which pads unequal ends; "
            "use an odd size or padding in numbers",
        ),
        (nn.Sequential(), "expand: Sequential holds no convolution; give one, or a stack of them"),
        (nn.ChannelShuffle(2), "expand: the layer comes before any convolution; put it behind one"),
        (
            nn.Sequential(nn.Conv2d(1, 3, 1), nn.ChannelShuffle(2)),
            "expand: 1 shuffles 2 groups but gets 3 channels; use a divisor",
        ),
    ],
)
def test_what_is_no_single_convolution_is_refused_with_the_reason(stack, message):
    with pytest.raises(InputError) as caught:
        expand(stack, ndim=2)
    assert str(caught.value) == message


def test_ndim_is_checked():
    with pytest.raises(InputError, match=r"expand: ndim is 4; use 1, 2 or 3"):
        expand(nn.Conv2d(1, 1, 1), ndim=4)


def test_the_refused_border_would_indeed_have_been_wrong():
    """Without the check, the composed kernel would differ from the stack at the border alone."""
    stack = nn.Sequential(nn.Conv1d(1, 1, 3, bias=False), nn.Conv1d(1, 1, 3, padding=1, bias=False)).double()
    inner = nn.Sequential(stack[0], nn.Conv1d(1, 1, 3, bias=False, dtype=torch.float64))
    inner[1].load_state_dict(stack[1].state_dict())
    x = torch.randn(1, 1, 9, dtype=torch.float64)
    wrong = nn.functional.conv1d(x, expand(inner, ndim=1).weight, padding=1)
    torch.testing.assert_close(stack(x)[..., 1:-1], wrong[..., 1:-1])
    assert not torch.allclose(stack(x)[..., 0], wrong[..., 0])


def test_a_sequential_with_its_own_forward_is_not_taken_for_a_stack():
    class Twice(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(InputError, match="the layer is Twice"):
        expand(Twice(nn.Conv2d(1, 1, 1)), ndim=2)
