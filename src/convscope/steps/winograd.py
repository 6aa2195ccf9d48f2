"""Winograd's minimal filtering: F(2x2, 3x3) makes four outputs of a 3x3 kernel with 16 multiplications, not 36.

Along one axis it is F(2, 3), 4 multiplications in place of 6; over three axes, 64 in place of 216.
Shapes: O output channels, I input channels of a group, T tiles; the spatial axes come last.
"""

import numpy as np

from convscope.errors import InputError
from convscope.steps.case import Case, by
from convscope.steps.way import Stage, Way

# Lavin & Gray 2015 (arXiv:1509.09308), section 4.1
B_T = np.array([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A_T = np.array([[1.0, 1, 1, 0], [0, 1, -1, -1]])


def by_winograd(case: Case) -> Way:
    """Tiles of 4 along each axis and the kernel are transformed, multiplied value by value, and transformed back to 2.

    Tiles overlap by two; those at the end are filled up with zeros, and what they compute too much is cut off.
    Raises: InputError if the kernel is not 3 along each axis, or stride or dilation is not 1.
    Source: Lavin & Gray 2015, Fast algorithms for convolutional neural networks (arXiv:1509.09308).
    """
    _check(case)
    outputs, *sizes = case.out_shape
    counts = [-(-n // 2) for n in sizes]
    field = case.padded
    room = [(0, 2 * n + 2 - have) for n, have in zip(counts, field.shape[1:], strict=True)]
    filled = np.pad(field, [(0, 0), *room])
    d = np.stack([filled[:, *(slice(2 * i, 2 * i + 4) for i in at)] for at in np.ndindex(*counts)])
    v, u = _along(B_T, d, case.ndim), _along(G, case.w, case.ndim)
    groups = [list(case.group_of(o)[0]) for o in range(outputs)]
    m = np.stack([(u[o] * v[:, channels]).sum(axis=1) for o, channels in enumerate(groups)], axis=1)
    y = _along(A_T, m, case.ndim)
    tiled = y.reshape(*counts, outputs, *[2] * case.ndim)
    order = [case.ndim, *(axis for i in range(case.ndim) for axis in (i, case.ndim + 1 + i))]
    whole = tiled.transpose(order).reshape(outputs, *(2 * n for n in counts))
    output = whole[:, *(slice(n) for n in sizes)]
    each, usual, times = 4**case.ndim, 6**case.ndim, len(d) * case.w.shape[0] * case.w.shape[1]
    over = ", though some tiles hang over the edge" if any(n % 2 for n in sizes) else ""
    counted = f"{each} for each of {times:,} tiles and kernels, where the definition has {usual}{over}"
    return Way("winograd", case, _stages(case, (d, v, u, m, y)), case.biased(output), each * times, counted)


def _stages(case: Case, found: tuple[np.ndarray, ...]) -> tuple[Stage, ...]:
    d, v, u, m, y = found
    each, wide, made = 4**case.ndim, by([4] * case.ndim), by([2] * case.ndim)
    matrices, tile, output = (
        case.stacked("output", "input"),
        case.stacked("tile", "channel"),
        case.stacked("tile", "output"),
    )
    names = {1: ("U = G g", "V = B^T d", "Y = A^T m"), 2: ("U = G g G^T", "V = B^T d B", "Y = A^T m A"),
             3: ("U = G g, along each axis", "V = B^T d, along each axis", "Y = A^T m, along each axis")}  # fmt: skip
    kernel, tiles, back = names[case.ndim]
    return (
        Stage("B^T", "the transform of the input", B_T),
        Stage("G", "the transform of the kernel", G),
        Stage("A^T", "the transform back", A_T),
        Stage("g", "the kernel", case.w, matrices),
        Stage(kernel, "the kernel, transformed once for all tiles", u, matrices),
        Stage("d", f"the padded input in tiles of {wide} that overlap by two", d, tile),
        Stage(tiles, "each tile, transformed", v, tile),
        Stage("m = U * V", f"value by value, {each} multiplications each, added over the input channels", m, output),
        Stage(back, f"transformed back: {made} outputs of each tile", y, output),
    )


def _along(matrix: np.ndarray, values: np.ndarray, ndim: int) -> np.ndarray:
    """A matrix applied along each of the last `ndim` axes."""
    for axis in range(-ndim, 0):
        values = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
    return values


def _check(case: Case) -> None:
    size, stride, dilation = case.w.shape[2:], case.per_axis("stride"), case.per_axis("dilation")
    three, tile = by([3] * case.ndim), by([2] * case.ndim)
    if set(size) != {3}:
        raise InputError(f"winograd: the kernel is {by(size)}, but F({tile}, {three}) has transforms for {three} alone"
                         "; use --kernel 3 or another --way")  # fmt: skip
    if set(stride) != {1}:
        raise InputError(f"winograd: the stride is {by(stride)}, but a tile's {tile} outputs share their sums only if "
                         "they are neighbours; use stride 1 or another --way")  # fmt: skip
    if set(dilation) != {1}:
        raise InputError(f"winograd: the dilation is {by(dilation)}, but the transforms are of values that are "
                         "neighbours; use dilation 1 or another --way")  # fmt: skip
