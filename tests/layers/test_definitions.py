"""PyTorch, the loops, the product with im2col, and the whole matrix: one operation in four forms, with gradients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from convscope.errors import InputError
from convscope.geometry import Window, out_size
from convscope.layers import (
    conv_gemm,
    conv_reference,
    convolution_matrix,
    im2col,
    max_pool_reference,
    shuffle_reference,
    transposed_reference,
)

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}


@dataclass(frozen=True)
class Case:
    x: torch.Tensor
    w: torch.Tensor
    options: dict[str, Any]


@st.composite
def cases(draw) -> Case:
    """A convolution that fits its input: any axes, stride, padding, dilation and groups."""
    ndim, groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    size, window = [], []
    for _ in range(ndim):
        kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        padding, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
        least = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        size.append(draw(st.integers(least, least + 3)))
        window.append((kernel, stride, padding, dilation))
    kernel, stride, padding, dilation = zip(*window, strict=True)
    torch.manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(2, groups * per_group, *size, dtype=torch.float64)
    w = torch.randn(groups * draw(st.integers(1, 2)), per_group, *kernel, dtype=torch.float64)
    return Case(x, w, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups})


@settings(max_examples=60)
@given(case=cases())
def test_four_forms_of_one_convolution(case):
    x, w, options = case.x.numpy(), case.w.numpy(), case.options
    expected = CONV[x.ndim - 2](case.x, case.w, **options).numpy()
    windows = (Window(*v) for v in zip(w.shape[2:], *list(options.values())[:3], strict=True))
    assert expected.shape[2:] == tuple(out_size(n, v) for n, v in zip(x.shape[2:], windows, strict=True))
    np.testing.assert_allclose(conv_reference(x, w, **options), expected, atol=1e-12)
    np.testing.assert_allclose(conv_gemm(x, w, **options), expected, atol=1e-12)
    matrix = convolution_matrix(w, x.shape[1:], **options)
    assert matrix.shape == (expected[0].size, x[0].size)
    np.testing.assert_allclose((x.reshape(2, -1) @ matrix.T).reshape(expected.shape), expected, atol=1e-12)


@settings(max_examples=40)
@given(case=cases())
def test_gradients_are_products_with_the_same_matrices(case):
    x, w = case.x.requires_grad_(), case.w.requires_grad_()
    y = CONV[x.dim() - 2](x, w, **case.options)
    g = torch.randn_like(y)
    dx, dw = (d.numpy() for d in torch.autograd.grad(y, (x, w), g))
    matrix = convolution_matrix(w.detach().numpy(), x.shape[1:], **case.options)
    np.testing.assert_allclose((g.reshape(2, -1).numpy() @ matrix).reshape(dx.shape), dx, atol=1e-12)
    window = {k: case.options[k] for k in ("stride", "padding", "dilation")}
    columns = im2col(x.detach().numpy(), w.shape[2:], **window)
    groups = case.options["groups"]
    slopes, taps = (a.reshape(2, groups, -1, columns.shape[-1]) for a in (g.numpy(), columns))
    np.testing.assert_allclose(np.einsum("ngol,ngkl->gok", slopes, taps).reshape(dw.shape), dw, atol=1e-12)


@settings(max_examples=40)
@given(case=cases())
def test_transposed_is_the_product_with_the_transposed_matrix(case):
    """The kernels O x I x K of a convolution are those C x O' x K of its transpose: channels change sides."""
    y_shape = CONV[case.x.dim() - 2](case.x, case.w, **case.options).shape
    z = torch.randn(y_shape, dtype=torch.float64)
    o = case.options
    axes = zip(case.x.shape[2:], case.w.shape[2:], o["stride"], o["padding"], o["dilation"], strict=True)
    # what the convolution's rounding down left unread at the end
    extra = tuple((n + 2 * p - d * (k - 1) - 1) % s for n, k, s, p, d in axes)
    expected = TRANSPOSED[z.dim() - 2](z, case.w, output_padding=extra, **o)
    assert expected.shape == case.x.shape
    got = transposed_reference(z.numpy(), case.w.numpy(), output_padding=extra, **o)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-12)
    matrix = convolution_matrix(case.w.numpy(), case.x.shape[1:], **o)
    np.testing.assert_allclose((z.reshape(2, -1).numpy() @ matrix).reshape(got.shape), got, atol=1e-12)


@st.composite
def transposed_cases(draw) -> Case:
    """A transposed convolution of its own, with all that the transpose of no rounded-down convolution needs."""
    ndim, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    size, window = [], []
    for _ in range(ndim):
        kernel, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        extra = draw(st.integers(0, max(stride, dilation) - 1))
        n = draw(st.integers(1, 3))
        most = ((n - 1) * stride + dilation * (kernel - 1) + extra) // 2  # one element is left
        size.append(n)
        window.append((kernel, stride, draw(st.integers(0, min(2, most))), extra, dilation))
    kernel, *rest = zip(*window, strict=True)
    torch.manual_seed(draw(st.integers(0, 99)))
    z = torch.randn(2, 2 * groups, *size, dtype=torch.float64)
    w = torch.randn(2 * groups, draw(st.integers(1, 2)), *kernel, dtype=torch.float64)
    names = ("stride", "padding", "output_padding", "dilation")
    return Case(z, w, dict(zip(names, rest, strict=True)) | {"groups": groups})


@settings(max_examples=40)
@given(case=transposed_cases())
def test_transposed_values_and_gradients_are_those_of_the_transposed_matrix(case):
    """z goes through A.T, so its gradient goes through A; that of a weight is im2col of the slope times z."""
    z, w, o = case.x.requires_grad_(), case.w.requires_grad_(), case.options
    bias = torch.randn(w.shape[1] * o["groups"], dtype=torch.float64, requires_grad=True)
    y = TRANSPOSED[z.dim() - 2](z, w, bias, **o)
    reference = transposed_reference(z.detach().numpy(), w.detach().numpy(), bias_O=bias.detach().numpy(), **o)
    np.testing.assert_allclose(reference, y.detach().numpy(), atol=1e-12)
    g = torch.randn_like(y)
    dz, dw, db = (d.numpy() for d in torch.autograd.grad(y, (z, w, bias), g))
    axes = zip(y.shape[2:], w.shape[2:], o["stride"], o["padding"], o["dilation"], strict=True)
    reached = [out_size(n, Window(k, s, p, d)) for n, k, s, p, d in axes]
    window = {k: o[k] for k in ("stride", "padding", "dilation")}
    columns = im2col(g.numpy(), w.shape[2:], **window).reshape(2, o["groups"], -1, *reached)
    columns = columns[(..., *(slice(n) for n in z.shape[2:]))].reshape(*columns.shape[:3], -1)
    if reached == list(z.shape[2:]):  # else output_padding makes room for one more window
        matrix = convolution_matrix(w.detach().numpy(), tuple(y.shape[1:]), groups=o["groups"], **window)
        values = (z.detach().numpy().reshape(2, -1) @ matrix).reshape(y.shape)
        np.testing.assert_allclose(values + bias.detach().numpy().reshape(-1, *[1] * (z.dim() - 2)), reference)
        np.testing.assert_allclose((g.numpy().reshape(2, -1) @ matrix.T).reshape(dz.shape), dz, atol=1e-12)
    inputs = z.detach().numpy().reshape(2, o["groups"], -1, columns.shape[-1])
    np.testing.assert_allclose(np.einsum("ngcl,ngkl->gck", inputs, columns).reshape(dw.shape), dw, atol=1e-12)
    np.testing.assert_allclose(g.numpy().sum((0, *range(2, z.dim()))), db, atol=1e-12)


def test_transposed_with_a_bias_and_the_2x2_to_4x4_of_the_books():
    x, w, bias = torch.randn(1, 2, 2, 2), torch.randn(2, 3, 3, 3), torch.randn(3)
    got = transposed_reference(x.numpy(), w.numpy(), bias_O=bias.numpy())
    assert got.shape == (1, 3, 4, 4)
    np.testing.assert_allclose(got, F.conv_transpose2d(x, w, bias).numpy(), atol=1e-5)


def test_transposed_restores_the_size_and_not_the_values():
    x, w = np.arange(16.0).reshape(1, 1, 4, 4), np.ones((1, 1, 3, 3))
    back = transposed_reference(conv_reference(x, w), w)
    assert back.shape == x.shape
    assert not np.allclose(back, x)


@settings(max_examples=40)
@given(data=st.data(), ndim=st.integers(1, 3), ties=st.booleans())
def test_pooling_and_where_its_values_lie(data, ndim, ties):
    size, window = [], []
    for _ in range(ndim):
        kernel = data.draw(st.integers(1, 3))
        padding, dilation = data.draw(st.integers(0, kernel // 2)), data.draw(st.integers(1, 2))
        least = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
        size.append(data.draw(st.integers(least, least + 3)))
        window.append((kernel, data.draw(st.integers(1, 3)), padding, dilation))
    kernel, stride, padding, dilation = zip(*window, strict=True)
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    x = x.round() if ties else x
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    expected, places = POOL[ndim](x, kernel, **options, return_indices=True)
    values, found = max_pool_reference(x.numpy(), kernel, **options)
    assert np.array_equal(values, expected.numpy())
    met = np.isfinite(values)  # a dilated window can meet padding alone: torch's number is then outside the map
    assert np.array_equal(found[met], places.numpy()[met])
    assert (found[~met] == -1).all()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_unpooling_puts_the_values_back_where_they_were(ndim):
    x = torch.rand(1, 2, *[4] * ndim)
    values, places = max_pool_reference(x.numpy(), 2)
    back = UNPOOL[ndim](torch.tensor(values), torch.tensor(places), 2)
    kept = back != 0
    assert int(kept.sum()) == values.size
    assert torch.equal(back[kept], x.double()[kept])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: transposed_reference(np.zeros((1, 1, 3)), np.zeros((1, 1, 3)), stride=2, output_padding=2),
            "transposed_reference: output_padding is 2; use 0 to 1, less than stride or dilation",
        ),
        (
            lambda: transposed_reference(np.zeros((1, 3, 3)), np.zeros((2, 1, 3))),
            "transposed_reference: 3 input channels do not fit kernels for 2 in 1 groups; each input channel has a "
            "kernel, and groups divides their number",
        ),
        (
            lambda: transposed_reference(np.zeros((1, 3, 3)), np.zeros((3, 1, 3, 3))),
            "transposed_reference: input (1, 3, 3) and kernels (3, 1, 3, 3) differ in axes; give both three or more",
        ),
        (
            lambda: max_pool_reference(np.zeros((1, 1, 3)), 3, padding=2),
            "max_pool_reference: padding is 2; use 1 or less, half of the kernel's 3",
        ),
        (
            lambda: shuffle_reference(np.zeros((1, 3)), groups=2),
            "shuffle_reference: 3 channels do not divide into 2 groups; use a divisor",
        ),
        (
            lambda: im2col(np.zeros((1, 1, 4, 4)), (3, 3), stride=(1, 1, 1)),
            "im2col: stride is (1, 1, 1) but the input has 2 spatial axes; give one number for each",
        ),
        (
            lambda: conv_gemm(np.zeros((1, 4, 4)), np.zeros((3, 2, 1)), groups=2),
            "conv_gemm: 4 input channels do not fit 3 kernels of 2 channels in 2 groups; "
            "a kernel has input channels / groups",
        ),
        (
            lambda: convolution_matrix(np.zeros((2, 2, 1)), (3, 4)),
            "convolution_matrix: 3 input channels do not fit 2 kernels of 2 channels in 1 groups; "
            "a kernel has input channels / groups",
        ),
        (
            lambda: im2col(np.zeros((1, 1, 2)), (3,)),
            "out_size: the window spans 3 elements but the padded axis has 2; "
            "use padding >= 1 or a smaller kernel or dilation",
        ),
    ],
)
def test_bad_input_says_what_was_found_and_what_fits(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message
