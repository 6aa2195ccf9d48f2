"""The loops against PyTorch's convolutions and against numbers worked out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convscope.errors import InputError
from convscope.layers import channel_shuffle
from convscope.layers.reference import conv_reference, max_pool_reference, transposed_reference

TORCH = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def test_a_patch_worked_out_by_hand():
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    w = np.array([[[[1.0, 0], [0, -2]]]])
    # 1 - 2*5, 2 - 2*6; 4 - 2*8, 5 - 2*9; and the bias
    assert conv_reference(x, w, bias_O=np.array([0.5])).tolist() == [[[[-8.5, -9.5], [-11.5, -12.5]]]]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), ndim=st.integers(1, 3), groups=st.integers(1, 2))
def test_the_loops_are_what_torch_computes(data, ndim, groups):
    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim)))

    size, kernel, stride, padding, dilation = each(1, 6), each(1, 3), each(1, 3), each(0, 2), each(1, 2)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(n + 2 * p >= s for n, p, s in zip(size, padding, spans, strict=True)))
    per_group = data.draw(st.integers(1, 2))
    x = torch.randn(2, per_group * groups, *size, dtype=torch.float64)
    w = torch.randn(groups * data.draw(st.integers(1, 2)), per_group, *kernel, dtype=torch.float64)
    bias = torch.randn(len(w), dtype=torch.float64) if data.draw(st.booleans()) else None
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    got = conv_reference(x.numpy(), w.numpy(), bias_O=None if bias is None else bias.numpy(), **options)
    expected = TORCH[ndim](x, w, bias, **options)
    assert got.shape == tuple(expected.shape)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-12)


def test_four_spatial_axes_are_the_separable_product():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, 1, 3, 3, 3, 3)), rng.normal(size=(1, 1, 2, 2, 2, 2))
    windows = np.lib.stride_tricks.sliding_window_view(x[0, 0], (2, 2, 2, 2))
    np.testing.assert_allclose(conv_reference(x, w)[0, 0], np.einsum("abcdijkl,ijkl->abcd", windows, w[0, 0]))


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="3 input channels do not fit 2 kernels of 2 channels in 1 groups"):
        conv_reference(np.zeros((1, 3, 4)), np.zeros((2, 2, 1)))
    with pytest.raises(InputError, match="differ in axes; give both"):
        conv_reference(np.zeros((1, 3, 4)), np.zeros((2, 3, 1, 1)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dilation": 0}, "dilation is 0; use 1 or more"),
        ({"stride": (1, 0)}, "stride is (1, 0); use 1 or more"),
        ({"padding": -1}, "padding is -1; use 0 or more"),
        ({"stride": (1, 1, 1)}, "stride is (1, 1, 1); give one number, or one for each of 2 axes"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_every_definition(given, message):
    x, w = np.zeros((1, 2, 4, 4)), np.zeros((2, 2, 3, 3))
    runs = {
        "conv_reference": lambda: conv_reference(x, w, **given),
        "transposed_reference": lambda: transposed_reference(x, w, **given),
        "max_pool_reference": lambda: max_pool_reference(x, 3, **given),
    }
    for name, run in runs.items():
        with pytest.raises(InputError) as caught:
            run()
        assert str(caught.value) == f"{name}: {message}"


def test_a_window_larger_than_the_input_is_refused():
    with pytest.raises(InputError) as caught:
        conv_reference(np.zeros((1, 1, 4)), np.zeros((1, 1, 3)), dilation=2)
    assert str(caught.value) == (
        "conv_reference: kernel_size is 3, which spans 5 with dilation 2, but the padded axis has 4; "
        "use a smaller one, or more padding"
    )


def test_a_shuffle_needs_an_axis_of_channels():
    with pytest.raises(InputError) as caught:
        channel_shuffle(torch.zeros(4), groups=2)
    assert str(caught.value) == "channel_shuffle: x has shape (4,); give NxCxD..., with an axis of channels"
