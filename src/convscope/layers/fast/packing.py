"""Weights in the order in which the compiled kernels read them, and what else is made of weights once.

Shape suffixes: O output channels, I input channels of a group, HW the kernel's axes.
"""

import operator
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.layers.fast.compiled import Unfit
from convscope.layers.fast.content import Content, content

T = TypeVar("T")


def ours(made: Tensor) -> Tensor:
    """The tensor, as one that nobody changes: it is not looked at again."""
    made.is_ours = True  # pyright: ignore[reportAttributeAccessIssue]
    return made


def is_ours(made: Tensor) -> bool:
    """Whether `ours` said so."""
    return hasattr(made, "is_ours")


class Derived(Generic[T]):
    """What is made of weights, kept until one of them changes; of those that do not tell of changes, made anew.

    A copy makes its own.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._kept: tuple[list[Content], T] | None = None

    def of(self, *weights: Tensor) -> T:
        """What the weights give now.

        Raises: Unfit if one is not float32.
        """
        kept = self._kept
        held = [*map(content, weights, kept[0] if kept else [None] * len(weights))]
        if kept is not None and all(map(operator.is_, held, kept[0])):
            return kept[1]
        if any(weight.dtype is not torch.float32 for weight in weights):
            raise Unfit
        with torch.inference_mode(False), torch.no_grad():
            made = self._make(*(weight.detach() for weight in weights))
        self._kept = held, made
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {"_make": self._make, "_kept": None}


def pack_grouped(w_OIHW: Tensor, *, lanes: int) -> Tensor:
    """Blocks of `lanes` output channels: O/lanes x H x W x I x lanes, I counted on from the output's own place in its
    group, so that the first needs no other lane's input.
    """
    o, i, h, w = w_OIHW.shape
    return _turned(w_OIHW, 1).reshape(o // lanes, lanes, i, h, w).permute(0, 3, 4, 2, 1).contiguous()


def unpack_grouped(packed: Tensor) -> Tensor:
    """The way back: O x I x H x W."""
    return _turned(packed.permute(0, 4, 3, 1, 2).flatten(0, 1), -1)


def pack_panels(w_OI: Tensor, *, panel: int) -> Tensor:
    """Panels of output channels, of a 1x1 kernel: O/panel x I x panel."""
    return w_OI.unflatten(0, (-1, panel)).transpose(1, 2).contiguous()


def pack_tiles(w_OI: Tensor) -> Tensor:
    """In tiles of pairs of inputs, for each 32 outputs and 32 inputs: O/32 x I/32 x (what a bfloat16 holds, what is
    left) x two halves of the outputs x 16 x 16 x 2. I are the inputs of one tap after the other.
    """
    larger = w_OI.bfloat16()
    return _tiles(torch.stack([larger, (w_OI - larger.float()).bfloat16()]))


def pack_thin(w_OIHW: Tensor, *, lanes: int) -> Tensor:
    """A vector for each place of a row and each input: the outputs, again and again. W x I x H x lanes."""
    return w_OIHW.permute(3, 1, 2, 0).repeat(1, 1, 1, lanes // len(w_OIHW)).contiguous()


def phases_of(w_IOHW: Tensor, stride: int, padding: tuple[int, int], *, outs: int) -> Tensor:
    """A transposed convolution as one to the outputs of all phases: stride*stride*outs x I x H x W, odd sizes, outputs
    filled up with zeros. Output stride*i + a sees input i - d by tap a + padding + stride*d.
    """
    ins, out, *size = w_IOHW.shape
    taps = [
        {(a, (a + p - k) // stride): k for a in range(stride) for k in range(n) if (a + p - k) % stride == 0}
        for n, p in zip(size, padding, strict=True)
    ]
    half = [max(abs(at) for _, at in axis) for axis in taps]
    made = w_IOHW.new_zeros(stride, stride, outs, ins, *(2 * n + 1 for n in half))
    for (a, down), k in taps[0].items():
        for (b, along), j in taps[1].items():
            made[a, b, :out, :, half[0] + down, half[1] + along] = w_IOHW[:, :, k, j].T
    return made.flatten(0, 2)


def pack_half(w_OIHW: Tensor) -> Tensor:
    """The same of bfloat16 alone. O that fills no tiles gets more of zeros; if I fills none, each row of taps does."""
    return _tiles(_rows_of_tiles(w_OIHW, depth=32).bfloat16()[None])


def pack_bytes(w_OIHW: Tensor) -> tuple[Tensor, Tensor]:
    """The same of signed bytes, for each 64 inputs; and what one of them is worth, for each output."""
    worth = w_OIHW.abs().amax((1, 2, 3)).clamp_min(1e-30) / 127
    whole = (w_OIHW / worth[:, None, None, None]).round()
    return _tiles(_rows_of_tiles(whole, depth=64).to(torch.int8)[None], beside=4), worth


def _rows_of_tiles(w_OIHW: Tensor, *, depth: int) -> Tensor:
    """The inputs of one tap after the other; of a row of taps if they fill no rows of so many, and then zeros."""
    w_OHWI = F.pad(w_OIHW, (0, 0, 0, 0, 0, 0, 0, -len(w_OIHW) % 32)).permute(0, 2, 3, 1)
    if w_OIHW.shape[1] % depth:
        rows = w_OHWI.flatten(2)
        w_OHWI = F.pad(rows, (0, -rows.shape[2] % depth))
    return w_OHWI.flatten(1)


def _tiles(w_POI: Tensor, *, beside: int = 2) -> Tensor:
    parts = w_POI.unflatten(2, (-1, 16, beside)).unflatten(1, (-1, 2, 16))
    return parts.permute(1, 4, 0, 2, 5, 3, 6).contiguous()


def _turned(w_OIHW: Tensor, by: int) -> Tensor:
    """The input channels of each output in its group, begun at its own place there; with `by` -1 begun at 0 again."""
    o, i = w_OIHW.shape[:2]
    if i == 1:
        return w_OIHW
    order = (torch.arange(i) + by * torch.arange(o)[:, None]) % i
    return w_OIHW.gather(1, order[..., None, None].expand_as(w_OIHW))


def pack_dense(w_OIHW: Tensor, *, panel: int) -> Tensor:
    """Panels of output channels, zeros where the last one is not full: O/panel x H x W x I x panel."""
    o, i, h, w = w_OIHW.shape
    full = F.pad(w_OIHW, (0, 0, 0, 0, 0, 0, 0, -o % panel))
    return full.reshape(-1, panel, i, h, w).permute(0, 3, 4, 2, 1).contiguous()
