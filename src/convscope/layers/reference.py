"""The family by its definitions: loops over every product, slow, and made to be read.

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
    Raises: InputError if the channels do not fit (C = I * groups, and O a multiple of groups), or a number does not.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285).

    >>> conv_reference(np.arange(5.0).reshape(1, 1, 5), np.array([[[-1.0, 0.0, 1.0]]])).tolist()
    [[[2.0, 2.0, 2.0]]]
    """
    _check_channels(x_NCD, w_OIK, groups)
    extent = w_OIK.shape[2:]
    ndim = len(extent)
    who = "conv_reference"
    strides, dilations = _per_axis(who, ndim, stride=stride, dilation=dilation)
    (pads,) = _per_axis(who, ndim, least=0, padding=padding)
    starts = _starts(who, x_NCD.shape[2:], extent, (strides, pads, dilations))
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


def transposed_reference(  # noqa: PLR0913 - the arguments of torch's transposed convolution
    x_NCD: np.ndarray,
    w_COK: np.ndarray,
    *,
    bias_O: np.ndarray | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> np.ndarray:
    """Transposed convolution, in float64, over any number of spatial axes: each input value spreads a kernel.

    x[n, c, place] * w[c, o, k] is added to y[n, first(c) + o, place*stride - padding + dilation*k], where first(c) is
    the first output channel of the group that channel c belongs to; what falls outside is dropped.
    Shapes: x NxCxD..., w Cx(outputs / groups)xK..., bias of all outputs -> NxOxD'..., where
    D' = (D - 1)*stride - 2*padding + dilation*(K - 1) + output_padding + 1.
    Raises: InputError if the channels do not fit, or output_padding reaches both stride and dilation.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4.

    >>> transposed_reference(np.array([[[1.0, 10.0]]]), np.array([[[1.0, 2.0, 3.0]]])).tolist()
    [[[1.0, 12.0, 23.0, 30.0]]]
    """
    _check_transposed(x_NCD, w_COK, groups)
    extent = w_COK.shape[2:]
    ndim = len(extent)
    who = "transposed_reference"
    strides, dilations = _per_axis(who, ndim, stride=stride, dilation=dilation)
    pads, extra = _per_axis(who, ndim, least=0, padding=padding, output_padding=output_padding)
    for e, s, d in zip(extra, strides, dilations, strict=True):
        if e >= max(s, d):
            raise InputError(f"{who}: output_padding is {e}; use 0 to {max(s, d) - 1}, less than stride or dilation")
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, e, d in zip(x_NCD.shape[2:], extent, strides, pads, extra, dilations, strict=True)
    ]
    per_group, group = w_COK.shape[1], x_NCD.shape[1] // groups
    y = np.zeros((len(x_NCD), per_group * groups, *size))
    for n, c, place in product(range(len(x_NCD)), range(x_NCD.shape[1]), np.ndindex(x_NCD.shape[2:])):
        start = [i * s - p for i, s, p in zip(place, strides, pads, strict=True)]
        for tap, at in _taps(extent, start, dilations):
            if all(0 <= a < limit for a, limit in zip(at, size, strict=True)):
                for o in range(per_group):
                    y[n, c // group * per_group + o, *at] += float(x_NCD[n, c, *place]) * float(w_COK[c, o, *tap])
    if bias_O is not None:
        y += bias_O.reshape(-1, *[1] * ndim)
    return y


def max_pool_reference(
    x_NCD: np.ndarray,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of every window, and where it lies: its number in the map, row by row, padding not counted.

    The first of equals wins. Without a stride, windows move by their own size. A dilated window that meets padding
    alone gives -inf, and -1 for its place.
    Shapes: x NxCxD... -> NxCxD'... twice: values, and int64 numbers in a map of D... .
    Raises: InputError if padding is more than half of the kernel, or another number does not fit.
    Source: Zeiler et al. 2011, Adaptive deconvolutional networks (pooling with switches).

    >>> values, places = max_pool_reference(np.array([[[1.0, 5.0, 2.0, 4.0]]]), 2)
    >>> values.tolist(), places.tolist()
    ([[[5.0, 4.0]]], [[[1, 3]]])
    """
    size, who = x_NCD.shape[2:], "max_pool_reference"
    moved = kernel_size if stride is None else stride
    extent, strides, dilations = _per_axis(who, len(size), kernel_size=kernel_size, stride=moved, dilation=dilation)
    (pads,) = _per_axis(who, len(size), least=0, padding=padding)
    for p, k in zip(pads, extent, strict=True):
        if p > k // 2:
            raise InputError(f"{who}: padding is {p}; use {k // 2} or less, half of the kernel's {k}")
    starts = _starts(who, size, extent, (strides, pads, dilations))
    y = np.full((*x_NCD.shape[:2], *(len(s) for s in starts)), -np.inf)
    where = np.full(y.shape, -1, dtype=np.int64)
    for n, c, place in product(range(y.shape[0]), range(y.shape[1]), np.ndindex(y.shape[2:])):
        start = [axis[i] for axis, i in zip(starts, place, strict=True)]
        for _, at in _taps(extent, start, dilations):
            inside = all(0 <= a < limit for a, limit in zip(at, size, strict=True))
            if inside and (where[n, c, *place] < 0 or x_NCD[n, c, *at] > y[n, c, *place]):
                y[n, c, *place] = x_NCD[n, c, *at]
                where[n, c, *place] = np.ravel_multi_index(at, size)
    return y, where


def shuffle_reference(x_NCD: np.ndarray, *, groups: int) -> np.ndarray:
    """Channel shuffle: channel g*(C/groups) + i goes to place i*groups + g.

    Shapes: x NxCxD... -> NxCxD... .
    Raises: InputError if C is no multiple of groups.
    Source: Zhang et al. 2017, ShuffleNet (arXiv:1707.01083).

    >>> shuffle_reference(np.arange(6).reshape(1, 6), groups=2).tolist()
    [[0, 3, 1, 4, 2, 5]]
    """
    channels = x_NCD.shape[1]
    if groups < 1 or channels % groups:
        raise InputError(f"shuffle_reference: {channels} channels do not divide into {groups} groups; use a divisor")
    each = channels // groups
    y = np.empty_like(x_NCD)
    for g, i in product(range(groups), range(each)):
        y[:, i * groups + g] = x_NCD[:, g * each + i]
    return y


def _taps(
    extent: Sequence[int], start: Sequence[int], dilations: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each place in the kernel, with the place of the input that lies under it."""
    for tap in np.ndindex(*extent):
        yield tap, tuple(s + d * k for s, d, k in zip(start, dilations, tap, strict=True))


def _per_axis(who: str, ndim: int, *, least: int = 1, **given: int | Sequence[int]) -> list[tuple[int, ...]]:
    """Each parameter as one number an axis, none below `least`."""
    found = []
    for name, value in given.items():
        values = (value,) * ndim if isinstance(value, int) else tuple(value)
        if len(values) != ndim:
            raise InputError(f"{who}: {name} is {values}; give one number, or one for each of {ndim} axes")
        if min(values) < least:
            raise InputError(f"{who}: {name} is {value}; use {least} or more")
        found.append(values)
    return found


def _starts(who: str, size: Sequence[int], extent: Sequence[int], moved: Sequence[Sequence[int]]) -> list[range]:
    """Along each axis, where the windows begin; `moved` is their strides, paddings and dilations."""
    found = []
    for n, k, s, p, d in zip(size, extent, *moved, strict=True):
        found.append(range(-p, n + p - d * (k - 1), s))
        if not found[-1]:
            raise InputError(
                f"{who}: kernel_size is {k}, which spans {d * (k - 1) + 1} with dilation {d}, but the padded axis has "
                f"{n + 2 * p}; use a smaller one, or more padding"
            )
    return found


def _check_channels(x_NCD: np.ndarray, w_OIK: np.ndarray, groups: int) -> None:
    if x_NCD.ndim != w_OIK.ndim or x_NCD.ndim < 3:
        raise InputError(
            f"conv_reference: input {x_NCD.shape} and kernels {w_OIK.shape} differ in axes; give both three or more"
        )
    if x_NCD.shape[1] != w_OIK.shape[1] * groups or w_OIK.shape[0] % groups:
        raise InputError(
            f"conv_reference: {x_NCD.shape[1]} input channels do not fit {w_OIK.shape[0]} kernels of "
            f"{w_OIK.shape[1]} channels in {groups} groups; a kernel has input channels / groups"
        )


def _check_transposed(x_NCD: np.ndarray, w_COK: np.ndarray, groups: int) -> None:
    if x_NCD.ndim != w_COK.ndim or x_NCD.ndim < 3:
        raise InputError(
            f"transposed_reference: input {x_NCD.shape} and kernels {w_COK.shape} differ in axes; "
            "give both three or more"
        )
    if x_NCD.shape[1] != w_COK.shape[0] or groups < 1 or w_COK.shape[0] % groups:
        raise InputError(
            f"transposed_reference: {x_NCD.shape[1]} input channels do not fit kernels for {w_COK.shape[0]} "
            f"in {groups} groups; each input channel has a kernel, and groups divides their number"
        )
