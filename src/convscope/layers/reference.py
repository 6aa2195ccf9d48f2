"""Convolution by its definition: loops over every product, slow, and made to be read.

Shape suffixes: N pictures, C input channels, O output channels, I = C / groups input channels that a kernel has;
D stands for the spatial axes (one, two, three or more), K for a kernel's extent along them.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from convscope.errors import InputError


def conv_reference(  # noqa: PLR0913 - the arguments of torch's convolution
    x_NCD: np.ndarray,
    w_OIK: np.ndarray,
    *,
    bias_O: np.ndarray | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> np.ndarray:
    """Convolution as deep learning has it (cross-correlation), in float64, over any number of spatial axes.

    y[n, o, place] = bias[o] + sum over i, k of x[n, first(o) + i, place*stride - padding + dilation*k] * w[o, i, k],
    where first(o) is the first channel of the group that kernel o belongs to, and x is 0 outside its axes.
    Shapes: x NxCxD..., w OxIxK..., bias O -> NxOxD'... .
    Raises: InputError if the channels do not fit: C = I * groups, and O a multiple of groups.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285).

    >>> conv_reference(np.arange(5.0).reshape(1, 1, 5), np.array([[[-1.0, 0.0, 1.0]]])).tolist()
    [[[2.0, 2.0, 2.0]]]
    """
    _check_channels(x_NCD, w_OIK, groups)
    extent = w_OIK.shape[2:]
    ndim = len(extent)
    strides, pads, dilations = (_per_axis(v, ndim) for v in (stride, padding, dilation))
    starts = [
        range(-p, n + p - d * (k - 1), s)
        for n, k, s, p, d in zip(x_NCD.shape[2:], extent, strides, pads, dilations, strict=True)
    ]
    kernels = w_OIK.shape[0]
    y = np.zeros((len(x_NCD), kernels, *(len(s) for s in starts)))
    for n, o, place in product(range(len(x_NCD)), range(kernels), np.ndindex(y.shape[2:])):
        channel = o // (kernels // groups) * w_OIK.shape[1]
        start = [axis[i] for axis, i in zip(starts, place, strict=True)]
        total = 0.0 if bias_O is None else float(bias_O[o])
        for tap, at in _taps(extent, start, dilations):
            if all(0 <= a < size for a, size in zip(at, x_NCD.shape[2:], strict=True)):
                for i in range(w_OIK.shape[1]):
                    total += float(x_NCD[n, channel + i, *at]) * float(w_OIK[o, i, *tap])
        y[n, o, *place] = total
    return y


def _taps(
    extent: Sequence[int], start: Sequence[int], dilations: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each place in the kernel, with the place of the input that lies under it."""
    for tap in np.ndindex(*extent):
        yield tap, tuple(s + d * k for s, d, k in zip(start, dilations, tap, strict=True))


def _per_axis(value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    return (value,) * ndim if isinstance(value, int) else tuple(value)


def _check_channels(x_NCD: np.ndarray, w_OIK: np.ndarray, groups: int) -> None:
    if x_NCD.ndim != w_OIK.ndim or x_NCD.ndim < 3:
        raise InputError(
            f"conv_reference: input {x_NCD.shape} and kernels {w_OIK.shape} need as many axes, three or more"
        )
    if x_NCD.shape[1] != w_OIK.shape[1] * groups or w_OIK.shape[0] % groups:
        raise InputError(
            f"conv_reference: {x_NCD.shape[1]} input channels do not fit {w_OIK.shape[0]} kernels of "
            f"{w_OIK.shape[1]} channels in {groups} groups; a kernel has input channels / groups"
        )
