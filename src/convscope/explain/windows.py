"""Operators that read a patch: convolution, products of matrices, pooling, means, interpolation.

Legend of shapes: N pictures, C channels, S... spatial axes, K... kernel axes, D axes of the tensor that was read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal

import numpy as np
import torch

from convscope.explain.terms import Explanation, Term
from convscope.geometry import Window
from convscope.graph import Op, Recording, Value
from convscope.graph.rules import conv_windows, pool_windows


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be explained: a unit of one output of an operator, whose tensors are in the recording."""

    recording: Recording
    op: Op
    unit: tuple[int, ...]
    output: int = 0

    @property
    def model_value(self) -> float:
        """What PyTorch computed."""
        return self.number(self.op.outputs[self.output], self.unit)

    def number(self, value: Value, index: tuple[int, ...]) -> float:
        """One element of a tensor."""
        return float(self.recording.tensors[value.id][index])

    def array(self, arg: str, index: Any = ()) -> np.ndarray:
        """A part of an argument in float64: cut out first, converted then."""
        return self.recording.tensors[self.op.args[arg].id][index].to(torch.float64).cpu().numpy()

    def term(self, label: str, source: Value | float, *, index: tuple[int, ...], weight: float | None = 1.0) -> Term:
        """A term read from a tensor at an index, or a number of the operator itself."""
        if isinstance(source, Value):
            value = self.number(source, index)
            return Term(label, source, index, value, weight, value * (weight or 0.0))
        return Term(label, None, (), float(source), weight, source * (weight or 0.0))

    def gather(self, arg: str, axes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The argument at the crossings of one list of indices per axis: values, which lie inside, their indices."""
        sizes = self.op.args[arg].shape
        inside = np.ones([len(a) for a in axes], bool)
        for axis, (a, n) in enumerate(zip(axes, sizes, strict=True)):
            inside &= ((a >= 0) & (a < n)).reshape([-1 if d == axis else 1 for d in range(len(axes))])
        clipped = [np.clip(a, 0, n - 1) for a, n in zip(axes, sizes, strict=True)]
        box = self.array(arg, tuple(slice(int(c.min()), int(c.max()) + 1) for c in clipped))
        values = np.where(inside, box[np.ix_(*(c - c.min() for c in clipped))], 0.0)
        return values, inside, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def summed(
        self, arg: str, axes: Sequence[np.ndarray], weights: Any, *, ndim: int, named: tuple[Term, ...] = (),
        combine: Literal["sum", "max"] = "sum",
    ) -> Explanation:  # fmt: skip
        """The elements at the crossings of the axes, times their weights. ndim: how many last axes the patch keeps."""
        values, inside, index = self.gather(arg, axes)
        shape = (-1, *values.shape[values.ndim - ndim :])
        x_CK, inside = values.reshape(shape), inside.reshape(shape)
        origin = tuple(int(a.min()) for a in axes[len(axes) - ndim :])
        return Explanation(
            self.op, self.unit, combine, x_CK, np.array(np.broadcast_to(weights, values.shape)).reshape(x_CK.shape),
            inside, origin, sum(t.contribution for t in named), self.model_value,
            source=self.op.args[arg], index_CKD=index.reshape(*x_CK.shape, index.shape[-1]), named=named,
        )  # fmt: skip


def convolution(asked: Asked) -> Explanation:
    """Patch x kernel over the channels of the group, and the bias."""
    op, (sample, channel, *at) = asked.op, asked.unit
    groups, windows = op.args["groups"], conv_windows(op)
    size, in_group = op.outputs[0].shape[1] // groups, op.args["input"].shape[1] // groups
    first = channel // size * in_group
    if op.args["transposed"]:
        kernel = asked.array("weight", (slice(first, first + in_group), channel % size))
        taps = [_transposed_taps(p, w) for p, w in zip(at, windows, strict=True)]
    else:
        kernel = asked.array("weight", (channel,))
        taps = [_taps(p, w) for p, w in zip(at, windows, strict=True)]
    bias = op.args["bias"]
    named = () if bias is None else (asked.term("bias", bias, index=(channel,)),)
    axes = [np.array([sample]), np.arange(first, first + in_group), *taps]
    return asked.summed("input", axes, kernel[None], ndim=len(taps), named=named)


def _taps(place: int, w: Window) -> np.ndarray:
    return place * w.stride - w.padding + w.dilation * np.arange(w.size)


def _transposed_taps(place: int, w: Window) -> np.ndarray:
    """The input that each kernel element meets; -1 where it falls between two inputs."""
    steps = place + w.padding - w.dilation * np.arange(w.size)
    return np.where(steps % w.stride == 0, steps // w.stride, -1)


def matrix_product(left: str, right: str, start: str | None = None) -> Callable[[Asked], Explanation]:
    """A row of the left matrix x a column of the right one, batched or not, and `start` with its factor beta."""

    def explain(asked: Asked) -> Explanation:
        args, (*batch, row, column) = asked.op.args, asked.unit
        weights = asked.array(right, (*batch, slice(None), column)) * float(args.get("alpha", 1))
        named: tuple[Term, ...] = ()
        if start is not None and args["beta"] != 0:
            index = broadcast_index(args[start], asked.unit)
            named = (asked.term("bias", args[start], index=index, weight=float(args["beta"])),)
        lead = [np.array([i]) for i in (*batch, row)]
        return asked.summed(left, [*lead, np.arange(args[left].shape[-1])], weights, ndim=1, named=named)

    return explain


def broadcast_index(value: Value, unit: tuple[int, ...]) -> tuple[int, ...]:
    """Where an operand that is broadcast was read for this unit of the output."""
    at = unit[len(unit) - len(value.shape) :]
    return tuple(0 if n == 1 else i for i, n in zip(at, value.shape, strict=True))


def max_pool(asked: Asked) -> Explanation:
    """The elements that competed."""
    windows = pool_windows(asked.op)
    taps = [_taps(p, w) for p, w in zip(asked.unit[-len(windows) :], windows, strict=True)]
    lead = [np.array([i]) for i in asked.unit[: -len(windows)]]
    return asked.summed("self", [*lead, *taps], 1.0, ndim=len(taps), combine="max")


def average_pool(asked: Asked) -> Explanation:
    """Each element of the window over their number; padding counts if `count_include_pad` says so."""
    args, windows = asked.op.args, pool_windows(asked.op)
    sizes = args["self"].shape[-len(windows) :]
    taps, counted = [], []
    for p, w, n in zip(asked.unit[-len(windows) :], windows, sizes, strict=True):
        reached = _taps(p, w)
        padded = reached[reached < n + w.padding]  # a last window in ceil mode reaches beyond the padding
        taps.append(padded)
        counted.append(len(padded) if args["count_include_pad"] else int(((padded >= 0) & (padded < n)).sum()))
    lead = [np.array([i]) for i in asked.unit[: -len(windows)]]
    divisor = args["divisor_override"] or prod(counted)
    return asked.summed("self", [*lead, *taps], 1 / divisor, ndim=len(taps))


def adaptive_average_pool(asked: Asked) -> Explanation:
    """The mean over the share of the axis: output i of m reads floor(i n / m) to ceil((i + 1) n / m) - 1."""
    value, ndim = asked.op.args["self"], len(asked.op.args["output_size"])
    shape = asked.op.outputs[0].shape
    sizes = zip(asked.unit[-ndim:], value.shape[-ndim:], shape[-ndim:], strict=True)
    taps = [np.arange(i * n // m, ceil((i + 1) * n / m)) for i, n, m in sizes]
    lead = [np.array([i]) for i in asked.unit[:-ndim]]
    return asked.summed("self", [*lead, *taps], 1 / prod(map(len, taps)), ndim=ndim)


def mean(asked: Asked) -> Explanation:
    """Each element over their number."""
    return _reduced(asked, mean=True)


def total(asked: Asked) -> Explanation:
    """Each element once."""
    return _reduced(asked, mean=False)


def _reduced(asked: Asked, *, mean: bool) -> Explanation:
    shape, dim = asked.op.args["self"].shape, asked.op.args.get("dim")
    dims = {d % len(shape) for d in (dim if isinstance(dim, tuple) else (dim,))} if dim not in (None, ()) else None
    dims = set(range(len(shape))) if dims is None else dims
    keep, rest = asked.op.args.get("keepdim", False), iter(asked.unit)
    axes = []
    for axis, n in enumerate(shape):
        at = 0 if axis in dims and not keep else next(rest)
        axes.append(np.arange(n) if axis in dims else np.array([at]))
    kept = len(shape) - min(dims, default=len(shape) - 1)
    return asked.summed("self", axes, 1 / prod(shape[d] for d in dims) if mean else 1.0, ndim=kept)


def interpolation(asked: Asked) -> Explanation:
    """The two neighbours along each axis, each weighted by how near it is."""
    args, ndim = asked.op.args, len(asked.op.args["output_size"])
    scales = [args.get(k) for k in ("scales", "scales_d", "scales_h", "scales_w") if k in args][-ndim:]
    sizes = zip(asked.unit[-ndim:], args["self"].shape[-ndim:], asked.op.outputs[0].shape[-ndim:], scales, strict=True)
    pairs = [_neighbours(i, n, m, scale=s, corners=args["align_corners"]) for i, n, m, s in sizes]
    weights = np.ones(())
    for _, w in pairs:
        weights = np.multiply.outer(weights, w)
    lead = [np.array([i]) for i in asked.unit[:-ndim]]
    return asked.summed("self", [*lead, *(p for p, _ in pairs)], weights, ndim=ndim)


def _neighbours(i: int, n: int, m: int, *, scale: float | None, corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """Output i of m lies between which two of n inputs, and the weights of these."""
    if corners:
        at = i * (n - 1) / (m - 1) if m > 1 else 0.0
    else:
        at = max(0.0, (i + 0.5) * (1 / scale if scale else n / m) - 0.5)
    low = min(int(at), n - 1)
    high, share = min(low + 1, n - 1), at - low
    return np.array([low, high]), np.array([1 - share, share])
