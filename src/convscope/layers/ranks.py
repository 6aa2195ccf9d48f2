"""Which rank a factorisation may have, and the smallest one for an error.

Shape suffixes: O output channels, I input channels, Y and X a kernel's rows and columns.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from convscope.errors import InputError

Rank = int | tuple[int, int]


def one_rank(kind: str, rank: Rank | None, most: int) -> int:
    """The rank, the largest if None.

    Raises: InputError if it is out of range.
    """
    r = most if rank is None else rank
    if not isinstance(r, int) or not 1 <= r <= most:
        fits = "1" if most == 1 else f"1 to {most}"
        raise InputError(f"factorise: rank is {rank} but {kind!r} of this convolution takes {fits}")
    return r


def two_ranks(rank: Rank | None, most: tuple[int, int]) -> tuple[int, int]:
    """Both ranks of Tucker's form, the largest if None; one number counts for both.

    Raises: InputError if one is out of range.
    """
    pair = most if rank is None else (rank, rank) if isinstance(rank, int) else tuple(rank)
    if len(pair) != 2 or not all(1 <= r <= m for r, m in zip(pair, most, strict=True)):
        raise InputError(
            f"factorise: rank is {rank} but 'tucker' of this convolution takes (1 to {most[0]}, 1 to {most[1]}), "
            f"or one number for both"
        )
    return pair[0], pair[1]


def spatial_table(w_OIYX: Tensor) -> Tensor:
    """The table whose SVD is the spatially separable form: (I*Y) x (O*X)."""
    kernels, channels, rows, columns = w_OIYX.shape
    return w_OIYX.permute(1, 2, 0, 3).reshape(channels * rows, kernels * columns)


def depthwise_tables(w_OIYX: Tensor) -> Tensor:
    """A table for each input channel, whose SVD is the depthwise separable form: I x O x (Y*X)."""
    return w_OIYX.transpose(0, 1).flatten(2)


def left_out(tables: Tensor) -> Tensor:
    """The squared error of every rank, 0 to the largest: what the truncated SVDs of all tables leave out, together."""
    squares = torch.linalg.svdvals(tables).square().reshape(-1, min(tables.shape[-2:])).sum(0)
    return torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)])


def svd_rank(tables: Tensor, error: float) -> int:
    """The least rank at which truncated SVDs have at most that relative error."""
    allowed = error**2 * tables.square().sum()
    return max(1, int((left_out(tables) > allowed).sum()))


def tucker_ranks(w_OIYX: Tensor, error: float) -> tuple[int, int]:
    """The pair of ranks with the fewest MACs for which the HOSVD's bound, the sum of both squares, keeps the error."""
    of_in, of_out = left_out(w_OIYX.transpose(0, 1).flatten(1)), left_out(w_OIYX.flatten(1))
    allowed = error**2 * w_OIYX.square().sum()
    kernels, channels, *size = w_OIYX.shape
    pairs = []
    for r_in in range(1, len(of_in)):
        rest = allowed - of_in[r_in]
        if rest >= 0 or r_in == len(of_in) - 1:
            r_out = min(max(1, int((of_out > rest).sum())), len(of_out) - 1)
            macs = r_in * channels + r_in * r_out * size[0] * size[1] + r_out * kernels
            pairs.append((macs, r_in, r_out))
    return min(pairs)[1:]


def least_rank(error_at: Callable[[int], float], error: float, most: int) -> int:
    """The least rank whose error is small enough, where it falls with the rank: by doubling, then halving the gap."""
    low, high = 0, 1
    while high < most and error_at(high) > error:
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if error_at(middle) > error else (low, middle)
    return high
