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


def start_of(whole: View, part: View) -> tuple[int, ...] | None:
    """Where a view begins in another, if it is a box of it; None if it lies otherwise."""
    if whole.stride != part.stride:
        return None
    rest, start = part.offset - whole.offset, [0] * len(whole.shape)
    for axis in sorted(range(len(start)), key=lambda k: -whole.stride[k]):
        start[axis], rest = divmod(rest, whole.stride[axis]) if whole.stride[axis] else (0, rest)
    fits = all(s >= 0 and s + n <= m for s, n, m in zip(start, part.shape, whole.shape, strict=True))
    return tuple(start) if fits and rest == 0 else None
