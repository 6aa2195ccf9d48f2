"""Where the elements of tensors lie in their blocks of memory: whether two overlap, and where one begins in another."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class View(NamedTuple):
    """Where the elements of a tensor lie in its block of memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


def view_of(tensor: Tensor) -> View:
    """Where a tensor's elements lie; of one that is not strided, its shape alone."""
    if tensor.layout is not torch.strided:
        return View(tuple(tensor.shape), (), 0, tensor.dtype)
    return View(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), tensor.dtype)


def overlap(a: View, b: View, size: int) -> bool:
    """Whether two views of one block of `size` bytes have an element in common."""
    count = size // a.dtype.itemsize
    if a == b or a.dtype != b.dtype or count > 2**28:  # the last is too large to look at: they may
        return True
    mask = np.zeros(count, dtype=bool)
    np.lib.stride_tricks.as_strided(mask[b.offset :], b.shape, b.stride)[...] = True
    return bool(np.lib.stride_tricks.as_strided(mask[a.offset :], a.shape, a.stride).any())


def box_of(whole: View, part: View) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Where a view begins in another along each of its axes, and which of them are the view's own; None if no box.

    An axis that the view does not have is one that it lies in at a single place.

    >>> rows = torch.zeros(4, 5, 6)
    >>> box_of(view_of(rows), view_of(rows[1, 2:4]))
    ((1, 2, 0), (1, 2))
    """
    axes = _own_axes(whole, part)
    rest, start = part.offset - whole.offset, [0] * len(whole.shape)
    for axis in sorted(range(len(start)), key=lambda k: -whole.stride[k]):
        start[axis], rest = divmod(rest, whole.stride[axis]) if whole.stride[axis] else (0, rest)
    if axes is None or rest != 0:
        return None
    lengths = [part.shape[axes.index(axis)] if axis in axes else 1 for axis in range(len(start))]
    fits = all(s >= 0 and s + n <= m for s, n, m in zip(start, lengths, whole.shape, strict=True))
    return (tuple(start), axes) if fits else None


def _own_axes(whole: View, part: View) -> tuple[int, ...] | None:
    """Which axes of the whole a view goes along, in its order; None if it steps otherwise."""
    axes: list[int] = []
    for axis, stride in enumerate(whole.stride):
        wanted = len(part.stride) - len(axes)
        can_skip = len(whole.stride) - axis > wanted
        if wanted and (part.stride[len(axes)] == stride or not can_skip):
            axes.append(axis)
    same = all(whole.stride[a] == s or n == 1 for a, s, n in zip(axes, part.stride, part.shape, strict=True))
    return tuple(axes) if same else None
