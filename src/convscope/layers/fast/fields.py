"""Several maps of falling size in one, a row or column of zeros between them, so that one convolution serves all."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor


class Field(NamedTuple):
    """Where a map lies in a larger one."""

    top: int
    left: int
    rows: int
    columns: int


class Laid(NamedTuple):
    """Where each map lies, the size of the whole, and the places in it of all maps, one map after another."""

    fields: tuple[Field, ...]
    rows: int
    columns: int
    places: Tensor


@functools.lru_cache(maxsize=16)
def laid_out(sizes: tuple[tuple[int, int], ...], gap: int = 1) -> Laid:
    """The first map at the left, the others below one another at its right.

    >>> laid_out(((4, 4), (2, 2), (1, 1)))[:3]
    ((Field(top=0, left=0, rows=4, columns=4), Field(top=0, left=5, rows=2, columns=2), \
Field(top=3, left=5, rows=1, columns=1)), 4, 7)
    """
    fields, top = [Field(0, 0, *sizes[0])], 0
    for rows, columns in sizes[1:]:
        fields.append(Field(top, sizes[0][1] + gap, rows, columns))
        top += rows + gap
    height = max(f.top + f.rows for f in fields)
    width = max(f.left + f.columns for f in fields)
    whole = torch.arange(height * width).view(height, width)
    return Laid(tuple(fields), height, width, torch.cat([_part(whole, f).flatten() for f in fields]))


def together(maps: Sequence[Tensor], laid: Laid) -> Tensor:
    """The maps [N, C, h, w] in one [N, C, rows, columns], with zeros elsewhere.

    >>> maps = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1)
    >>> together(maps, laid_out(((2, 2), (1, 1)))).tolist()
    [[[[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]]]]
    """
    return cast("Tensor", _Together.apply(laid, *maps))


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, laid: Laid, *maps: Tensor) -> Tensor:
        ctx.fields, (count, channels) = laid.fields, maps[0].shape[:2]
        whole = maps[0].new_zeros(count, laid.rows, laid.columns, channels).permute(0, 3, 1, 2)
        for field, x in zip(laid.fields, maps, strict=True):
            _part(whole, field).copy_(x)
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, *(_part(grads[0], field) for field in ctx.fields)


def _part(x: Tensor, field: Field) -> Tensor:
    return x[..., field.top : field.top + field.rows, field.left : field.left + field.columns]
