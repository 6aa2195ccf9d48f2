"""Convolution as a product of matrices: every window as a column, or the whole map as one vector.

Shape suffixes: N pictures, C input channels, O output channels, I = C / groups input channels that a kernel has;
D stands for the spatial axes, K for a kernel's extent along them, L for all output places in one row.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from convscope.errors import InputError
from convscope.geometry import Window, out_size


def im2col(
    x_NCD: np.ndarray,
    kernel_size: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> np.ndarray:
    """Every window of the input as a column, so that convolution is one product of matrices.

    Shapes: x NxCxD..., kernel_size one number a spatial axis -> Nx(C*K)xL, channels outermost in a column.
    Raises: InputError if the axes do not match or no window fits.
    Source: Chellapilla et al. 2006, High performance convolutional neural networks for document processing.

    >>> im2col(np.arange(4.0).reshape(1, 1, 4), (2,))[0].tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    windows = _windows(kernel_size, x_NCD.shape[2:], stride=stride, padding=padding, dilation=dilation)
    pads = [(w.padding, w.padding) for w in windows]
    x = np.pad(x_NCD, [(0, 0), (0, 0), *pads])
    for axis, (w, n) in enumerate(zip(windows, x_NCD.shape[2:], strict=True)):
        starts = np.arange(out_size(n, w)) * w.stride
        taps = np.arange(w.size) * w.dilation
        # the axis becomes two: the place in the kernel, and the place of the window
        x = np.take(x, taps[:, None] + starts, axis=2 + 2 * axis)
    order = [0, 1, *range(2, x.ndim, 2), *range(3, x.ndim, 2)]
    taps_in_all = x_NCD.shape[1] * prod(w.size for w in windows)
    return x.transpose(order).reshape(len(x_NCD), taps_in_all, -1)


def conv_gemm(
    x_NCD: np.ndarray,
    w_OIK: np.ndarray,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> np.ndarray:
    """Convolution as `im2col` and one product of matrices for each group.

    Shapes: x NxCxD..., w OxIxK... -> NxOxD'... .
    Raises: InputError if the channels or axes do not fit, or no window does.
    Source: Chellapilla et al. 2006, High performance convolutional neural networks for document processing.

    >>> conv_gemm(np.arange(5.0).reshape(1, 1, 5), np.array([[[-1.0, 0.0, 1.0]]])).tolist()
    [[[2.0, 2.0, 2.0]]]
    """
    _check_groups("conv_gemm", x_NCD.shape[1], w_OIK.shape, groups)
    size, kernels = w_OIK.shape[2:], len(w_OIK)
    windows = _windows(size, x_NCD.shape[2:], stride=stride, padding=padding, dilation=dilation)
    columns = im2col(x_NCD, size, stride=stride, padding=padding, dilation=dilation)
    grouped = columns.reshape(len(x_NCD), groups, -1, columns.shape[-1])
    y = w_OIK.reshape(groups, kernels // groups, -1) @ grouped
    return y.reshape(len(x_NCD), kernels, *(out_size(n, w) for n, w in zip(x_NCD.shape[2:], windows, strict=True)))


def convolution_matrix(
    w_OIK: np.ndarray,
    in_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> np.ndarray:
    """The matrix A with which a convolution is y = A x, on maps laid out as vectors; A.T x is the transposed one.

    Mostly zeros and written out in full: for small maps.
    Shapes: w OxIxK..., in_shape (C, D...) -> (O*D'...) x (C*D...).
    Raises: InputError if the channels or axes do not fit, or no window does.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), sections 4.1 and 4.2.

    >>> convolution_matrix(np.array([[[1.0, 2.0]]]), (1, 3)).tolist()
    [[1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]
    """
    channels, *size = in_shape
    _check_groups("convolution_matrix", channels, w_OIK.shape, groups)
    elements = channels * prod(size)
    # im2col of the elements' numbers says which element lies under each tap: number 0 is the padding
    numbers = np.arange(1, elements + 1).reshape(1, *in_shape)
    taps_KL = im2col(numbers, w_OIK.shape[2:], stride=stride, padding=padding, dilation=dilation)[0]
    kernels, places = len(w_OIK), taps_KL.shape[1]
    per_group = np.split(taps_KL, groups)
    matrix = np.zeros((kernels, places, elements + 1), dtype=w_OIK.dtype)
    for o in range(kernels):
        under = per_group[o // (kernels // groups)]
        weights = np.broadcast_to(w_OIK[o].reshape(-1, 1), under.shape)
        np.add.at(matrix[o], (np.arange(places)[None, :], under), weights)
    return matrix[:, :, 1:].reshape(kernels * places, elements)


def _windows(
    kernel_size: Sequence[int],
    size: Sequence[int],
    *,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
) -> list[Window]:
    ndim = len(size)
    rows = [(v,) * ndim if isinstance(v, int) else tuple(v) for v in (kernel_size, stride, padding, dilation)]
    for name, row in zip(("kernel_size", "stride", "padding", "dilation"), rows, strict=True):
        if len(row) != ndim:
            raise InputError(f"im2col: {name} is {row} but the input has {ndim} spatial axes; give one number for each")
    return [Window(*columns) for columns in zip(*rows, strict=True)]


def _check_groups(who: str, channels: int, kernels: tuple[int, ...], groups: int) -> None:
    if groups < 1 or channels != kernels[1] * groups or kernels[0] % groups:
        raise InputError(
            f"{who}: {channels} input channels do not fit {kernels[0]} kernels of {kernels[1]} channels "
            f"in {groups} groups; a kernel has input channels / groups"
        )
