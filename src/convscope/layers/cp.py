"""cp(): a tensor as a sum of few outer products, one vector an axis, by alternating least squares.

Shape suffixes: B tensors that are taken apart each on its own, R terms of the sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

PROXIMAL = 1e-10  # share of a step's equations that holds on to where it is: none is singular, no error grows
STALLED = 1e-6  # a sweep that lowers no squared error by a larger share is the last


@dataclass(frozen=True, slots=True, eq=False)
class Cp:
    """The terms: `factors` has BxNxR for each axis of N elements, `errors` the relative error after each sweep.

    Shapes: errors SxB, of the start that came out best; one row where the terms are exact.
    """

    factors: tuple[Tensor, ...]
    errors: Tensor

    @property
    def error(self) -> Tensor:
        """Relative Frobenius error of each tensor."""
        return self.errors[-1]


def most_terms(shape: tuple[int, ...]) -> int:
    """Terms that are always enough: all but the longest axis taken element by element.

    >>> most_terms((16, 3, 3))
    9
    """
    return prod(shape) // max(shape)


def cp(tensor_B: Tensor, rank: int, *, seed: int = 0, starts: int = 2, sweeps: int = 100) -> Cp:
    """Each of B tensors as the sum of `rank` outer products that comes nearest; a near minimum, exact at `most_terms`.

    The first start is the leading directions along each axis, the others are random under `seed`; the best one counts
    for each tensor. Every sweep solves for the vectors of one axis after the other, and none makes the error larger.
    Shapes: tensor BxN1xN2x..., float64, two axes or more behind B.
    Source: Harshman 1970; Carroll & Chang 1970; Kolda & Bader 2009 (doi:10.1137/07070111X).

    >>> table = torch.outer(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0])).double()
    >>> cp(table[None], 1).error.item() < 1e-12
    True
    """
    if rank == most_terms(tuple(tensor_B.shape[1:])):
        return _exact(tensor_B)
    generator = torch.Generator().manual_seed(seed)
    found = [_refined(tensor_B, list(_start(tensor_B, rank, generator, led=k == 0)), sweeps) for k in range(starts)]
    best = torch.stack([f.error for f in found]).argmin(0)
    longest = max(len(f.errors) for f in found)
    errors = torch.stack([torch.cat([f.errors, f.errors[-1:].expand(longest - len(f.errors), -1)]) for f in found])
    each = torch.arange(len(tensor_B))
    factors = tuple(torch.stack(axis)[best, each] for axis in zip(*(f.factors for f in found), strict=True))
    return Cp(factors, errors.transpose(1, 2)[best, each].T)


def _exact(tensor_B: Tensor) -> Cp:
    """The terms' places along the short axes are single elements, the long axis has the fibre through them."""
    shape = tensor_B.shape[1:]
    long = max(range(len(shape)), key=lambda a: shape[a])
    short = [n for a, n in enumerate(shape) if a != long]
    places = iter(torch.cartesian_prod(*(torch.arange(n) for n in short)).reshape(-1, len(short)).T)
    factors = []
    for axis, n in enumerate(shape):
        if axis == long:
            factors.append(tensor_B.movedim(1 + axis, 1).flatten(2))
        else:
            factors.append(torch.eye(n, dtype=tensor_B.dtype)[:, next(places)].expand(len(tensor_B), -1, -1))
    return Cp(tuple(factors), torch.zeros(1, len(tensor_B), dtype=tensor_B.dtype))


def _start(tensor_B: Tensor, rank: int, generator: torch.Generator, *, led: bool) -> Iterator[Tensor]:
    for axis, n in enumerate(tensor_B.shape[1:], start=1):
        drawn = torch.randn(len(tensor_B), n, rank, generator=generator, dtype=tensor_B.dtype)
        if led:
            table = tensor_B.movedim(axis, 1).flatten(2)
            leading = torch.linalg.eigh(table @ table.mT).eigenvectors.flip(-1)[..., :rank]
            drawn = torch.cat([leading, drawn[..., leading.shape[-1] :]], -1)
        yield drawn


def _refined(tensor_B: Tensor, factors: list[Tensor], sweeps: int) -> Cp:
    tables = [tensor_B.movedim(axis, 1).flatten(2) for axis in range(1, tensor_B.dim())]  # BxNx(all others)
    size = tensor_B.flatten(1).norm(dim=1).clamp_min(torch.finfo(tensor_B.dtype).tiny)
    errors = [_left(tables[0], factors) / size]
    for _ in range(sweeps):
        for axis, table in enumerate(tables):
            factors[axis] = _solved(table, factors, axis)
        factors = _balanced(factors)
        errors.append(_left(tables[0], factors) / size)
        gained = errors[-2] ** 2 - errors[-1] ** 2
        if (gained <= STALLED * errors[-2] ** 2).all() or (errors[-1] < 1e-14).all():
            break
    return Cp(tuple(factors), torch.stack(errors))


def _solved(table: Tensor, factors: list[Tensor], axis: int) -> Tensor:
    """The vectors of one axis that fit best with the others as they are."""
    others = factors[:axis] + factors[axis + 1 :]
    gram_BRR = torch.stack([f.mT @ f for f in others]).prod(0)
    hold = (PROXIMAL * gram_BRR.diagonal(dim1=1, dim2=2).mean(1)).clamp_min(torch.finfo(table.dtype).tiny)
    hold = hold[:, None, None]
    left = gram_BRR + hold * torch.eye(gram_BRR.shape[-1], dtype=table.dtype)
    return torch.linalg.solve(left, (table @ _products(others) + hold * factors[axis]).mT).mT


def _left(table: Tensor, factors: list[Tensor]) -> Tensor:
    """What the terms leave of each tensor: table is its unfolding along the first axis."""
    return (table - factors[0] @ _products(factors[1:]).mT).flatten(1).norm(dim=1)


def _products(factors: list[Tensor]) -> Tensor:
    """The terms' outer products over these axes, as columns: Bx(N1*N2...)xR (Khatri-Rao)."""
    whole, *rest = factors
    for f in rest:
        whole = (whole.unsqueeze(2) * f.unsqueeze(1)).flatten(1, 2)
    return whole


def _balanced(factors: list[Tensor]) -> list[Tensor]:
    """The same terms with vectors of one length on all axes."""
    lengths = [f.norm(dim=1, keepdim=True).clamp_min(torch.finfo(f.dtype).tiny) for f in factors]
    shared = torch.stack(lengths).log().mean(0).exp()
    return [f / length * shared for f, length in zip(factors, lengths, strict=True)]
