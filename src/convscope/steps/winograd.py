"""Winograd's minimal filtering F(2x2, 3x3): four outputs of a 3x3 kernel with 16 multiplications in place of 36.

Shape suffixes: O output channels, I input channels of a group, T tiles, HW rows and columns.
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
    """Tiles of 4x4 and the kernel are transformed, multiplied value by value, and transformed back to 2x2 outputs.

    Tiles overlap by two; those at the end are filled up with zeros, and what they compute too much is cut off.
    Raises: InputError if the kernel is not 3x3, or stride or dilation is not 1.
    Source: Lavin & Gray 2015, Fast algorithms for convolutional neural networks (arXiv:1509.09308).
    """
    _check(case)
    outputs, height, width = case.out_shape
    down, right = -(-height // 2), -(-width // 2)
    field = case.padded
    room = [(0, 2 * n + 2 - have) for n, have in zip((down, right), field.shape[1:], strict=True)]
    filled = np.pad(field, [(0, 0), *room])
    d = np.stack([filled[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] for i in range(down) for j in range(right)])
    v, u = B_T @ d @ B_T.T, G @ case.w @ G.T
    groups = [list(case.group_of(o)[0]) for o in range(outputs)]
    m = np.stack([(u[o] * v[:, channels]).sum(axis=1) for o, channels in enumerate(groups)], axis=1)
    y = A_T @ m @ A_T.T
    whole = y.reshape(down, right, outputs, 2, 2).transpose(2, 0, 3, 1, 4).reshape(outputs, 2 * down, 2 * right)
    tiles = down * right
    stages = (
        Stage("B^T", "the transform of the input", B_T),
        Stage("G", "the transform of the kernel", G),
        Stage("A^T", "the transform back", A_T),
        Stage("g", "the kernel", case.w, ("output", "input")),
        Stage("U = G g G^T", "the kernel, transformed once for all tiles", u, ("output", "input")),
        Stage("d", "the padded input in tiles of 4x4 that overlap by two", d, ("tile", "channel")),
        Stage("V = B^T d B", "each tile, transformed", v, ("tile", "channel")),
        Stage("m = U * V", "value by value, 16 multiplications each, added over the input channels", m,
              ("tile", "output")),
        Stage("Y = A^T m A", "transformed back: 2x2 outputs of each tile", y, ("tile", "output")),
    )  # fmt: skip
    over = "" if height % 2 == width % 2 == 0 else ", though some tiles hang over the edge"
    times = tiles * case.w.shape[0] * case.w.shape[1]
    counted = f"16 for each of {times:,} tiles and kernels, where the definition has 36{over}"
    return Way("winograd", case, stages, whole[:, :height, :width], 16 * times, counted)


def _check(case: Case) -> None:
    size, stride, dilation = case.w.shape[2:], case.pair("stride"), case.pair("dilation")
    if size != (3, 3):
        raise InputError(f"winograd: the kernel is {by(size)}, but F(2x2, 3x3) has transforms for 3x3 alone; "
                         "use --kernel 3 or another --way")  # fmt: skip
    if stride != (1, 1):
        raise InputError(f"winograd: the stride is {by(stride)}, but a tile's 2x2 outputs share their sums only when "
                         "they are neighbours; use stride 1 or another --way")  # fmt: skip
    if dilation != (1, 1):
        raise InputError(f"winograd: the dilation is {by(dilation)}, but the transforms are of values that are "
                         "neighbours; use dilation 1 or another --way")  # fmt: skip
