"""explain(): one output value as the terms that were combined to make it.

    Legend of shapes: N pictures, C input channels of the group, S... spatial axes, K... kernel axes.
    x_CK  the patch: what the unit read (0 in padding)      w_CK  the kernel that it was multiplied with

The arithmetic is redone in float64 from the kept tensors and set beside the value that PyTorch computed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from convscope.errors import InputError
from convscope.geometry import Window
from convscope.graph import Op, Recording
from convscope.graph.rules import conv_windows, pool_windows
from convscope.table import Column, Table, number


@dataclass(frozen=True, slots=True)
class Explanation:
    """One value of one operator, term by term.

    `unit` is its index in the output; `origin` the index of the patch's first element on each spatial axis
    of the operator's input (negative in padding); `inside` is False where the patch lies in padding, or, for a
    transposed convolution, between two inputs.
    A "sum" adds patch x kernel and the bias; a "max" takes the largest element inside.
    """

    op: Op
    unit: tuple[int, ...]
    combine: Literal["sum", "max"]
    x_CK: np.ndarray
    w_CK: np.ndarray
    inside: np.ndarray
    origin: tuple[int, ...]
    bias: float
    model_value: float

    @property
    def products(self) -> np.ndarray:
        """patch x kernel, element by element."""
        return self.x_CK * self.w_CK

    @property
    def channel_sums(self) -> np.ndarray:
        """The products of each input channel, added."""
        return self.products.reshape(len(self.products), -1).sum(axis=1)

    @property
    def total(self) -> float:
        """The value, computed from its terms in float64."""
        if self.combine == "max":
            return float(self.x_CK[self.inside].max())
        return float(self.products.sum()) + self.bias

    @property
    def difference(self) -> float:
        """What PyTorch computed less what the terms add up to."""
        return self.model_value - self.total

    def table(self) -> Table:
        """The contribution of each input channel, largest first, the bias, and the total."""
        columns = (Column("term", "term"), Column("value", "value"))
        total = {"term": "total", "value": self.total}
        says = f"the model says {number(self.model_value)} (difference {number(self.difference)})"
        if self.combine == "max":
            place = np.argwhere(self.inside & (self.x_CK == self.total))[0]
            at = ", ".join(str(o + int(i)) for o, i in zip(self.origin, place[1:], strict=True))
            return Table(
                columns,
                ({"term": f"largest of {int(self.inside.sum())}, at {at}", "value": self.total},),
                total=total,
                notes=(says,),
            )
        sums = self.channel_sums
        rows = [{"term": f"input channel {c}", "value": float(sums[c])} for c in np.argsort(-np.abs(sums))]
        rows.append({"term": "bias", "value": self.bias})
        return Table(columns, tuple(rows), title=self.title, total=total, notes=(says,))

    @property
    def title(self) -> str:
        """Which value of which layer this is."""
        return f"{self.op.module or self.op.name}[{', '.join(map(str, self.unit))}] ({self.op.name})"

    def text(self) -> str:
        """The strongest input channel as patch x kernel = products, then the sums."""
        strongest = int(np.argmax(np.abs(self.channel_sums)))
        parts = [("patch", self.x_CK)]
        if self.combine == "sum":
            parts += [("x kernel", self.w_CK), ("= products", self.products)]
        blocks = [_block(name, _matrix(a[strongest]), _matrix(self.inside[strongest])) for name, a in parts]
        height = max(map(len, blocks))
        padded = [b + [" " * len(b[0])] * (height - len(b)) for b in blocks]
        lines = ["   ".join(row).rstrip() for row in zip(*padded, strict=True)]
        return "\n".join(
            [f"input channel {strongest} of {len(self.x_CK)} (. = padding)", *lines, "", str(self.table())]
        )

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: every term with its place."""
        return {
            "layer": self.op.module, "op": self.op.name, "unit": self.unit, "combine": self.combine,
            "origin": self.origin, "patch": self.x_CK.tolist(), "kernel": self.w_CK.tolist(),
            "inside": self.inside.tolist(), "products": self.products.tolist(),
            "channel_sums": self.channel_sums.tolist(), "bias": self.bias, "total": self.total,
            "model_value": self.model_value, "difference": self.difference,
        }  # fmt: skip

    def __str__(self) -> str:
        return self.text()


def explain(recording: Recording, layer: str | int | Op, *, unit: tuple[int, ...]) -> Explanation:
    """The terms that were combined to make one value of a layer's output.

    layer: an operator of the recording, its index, or its module ("C3"). unit: an index for every axis of the
    output. The recording must keep the operator: `record(model, x, keep=lambda op: op.module == "features.C3")`.
    Raises: InputError if the unit lies outside, the tensors were not kept, or the operator has no explanation.

    >>> from torch import nn
    >>> from convscope.graph import record
    >>> conv = nn.Conv2d(1, 1, 3, padding=1)
    >>> recording = record(nn.Sequential(conv), torch.ones(1, 1, 5, 5), keep=lambda op: True)
    >>> told = explain(recording, "0", unit=(0, 0, 0, 0))
    >>> int(told.inside.sum()), abs(told.difference) < 1e-6
    (4, True)
    """
    op = layer if isinstance(layer, Op) else recording.find(layer)
    explainer = EXPLAINERS.get(op.target) or EXPLAINERS.get(op.target.rpartition(".")[0])
    where = f"explain {op.module or op.name}"
    if explainer is None:
        inputs = ", ".join("x".join(map(str, v.shape)) for v in op.inputs)
        known = ", ".join(name.removeprefix("aten.") for name in EXPLAINERS)
        raise InputError(f"{where}: {op.name} has no explanation yet (it read {inputs}); those that have: {known}")
    shape = op.outputs[0].shape
    if len(unit) != len(shape) or not all(0 <= i < n for i, n in zip(unit, shape, strict=False)):
        ranges = ", ".join(f"0..{n - 1}" for n in shape)
        raise InputError(f"{where}: unit {','.join(map(str, unit))} is outside its output; use {ranges}")
    if not all(v.id in recording.tensors for v in (*op.inputs, op.outputs[0])):
        raise InputError(f"{where}: its tensors were not kept; record with keep=lambda op: op.module == {op.module!r}")
    return explainer(recording, op, unit)


def _convolution(recording: Recording, op: Op, unit: tuple[int, ...]) -> Explanation:
    sample, channel, *place = unit
    groups, windows = op.args["groups"], conv_windows(op)
    x_NCS, weight = _numpy(recording, op, "input"), _numpy(recording, op, "weight")
    size, in_group = op.outputs[0].shape[1] // groups, x_NCS.shape[1] // groups
    group = channel // size
    x_CS = x_NCS[sample, group * in_group : (group + 1) * in_group]
    if op.args["transposed"]:
        kernel = weight[group * in_group : (group + 1) * in_group, channel % size]
        taps = [_transposed_taps(p, w) for p, w in zip(place, windows, strict=True)]
    else:
        kernel = weight[channel]
        taps = [p * w.stride - w.padding + w.dilation * np.arange(w.size) for p, w in zip(place, windows, strict=True)]
    patch, inside = _gather(x_CS, taps)
    bias = 0.0 if op.args["bias"] is None else float(_numpy(recording, op, "bias")[channel])
    origin = tuple(int(t.min()) for t in taps)
    return _explained(recording, op, unit, patch=patch, kernel=kernel, inside=inside, origin=origin, bias=bias)


def _transposed_taps(place: int, w: Window) -> np.ndarray:
    """The input that each kernel element meets; -1 where it falls between two inputs."""
    steps = place + w.padding - w.dilation * np.arange(w.size)
    return np.where(steps % w.stride == 0, steps // w.stride, -1)


def _linear(recording: Recording, op: Op, unit: tuple[int, ...]) -> Explanation:
    left, right = ("mat1", "mat2") if "mat1" in op.args else ("self", "mat2")
    row, column = _numpy(recording, op, left)[unit[0]], _numpy(recording, op, right)[:, unit[1]]
    bias = 0.0
    if "mat1" in op.args:
        bias = float(op.args["beta"]) * float(np.broadcast_to(_numpy(recording, op, "self"), op.outputs[0].shape)[unit])
        column = column * float(op.args["alpha"])
    return _explained(recording, op, unit, patch=row[None], kernel=column[None], bias=bias)


def _max_pool(recording: Recording, op: Op, unit: tuple[int, ...]) -> Explanation:
    windows = pool_windows(op)
    x_CS = _numpy(recording, op, "self")[unit[: -len(windows)]][None]
    places = zip(unit[-len(windows) :], windows, strict=True)
    taps = [p * w.stride - w.padding + w.dilation * np.arange(w.size) for p, w in places]
    patch, inside = _gather(x_CS, taps)
    told = _explained(recording, op, unit, patch=patch, kernel=np.ones_like(patch), inside=inside)
    return replace(told, combine="max", origin=tuple(int(t.min()) for t in taps))


def _explained(  # noqa: PLR0913  the fields of an Explanation
    recording: Recording,
    op: Op,
    unit: tuple[int, ...],
    *,
    patch: np.ndarray,
    kernel: np.ndarray,
    inside: np.ndarray | None = None,
    origin: tuple[int, ...] = (0,),
    bias: float = 0.0,
) -> Explanation:
    inside = np.ones(patch.shape, bool) if inside is None else inside
    value = float(recording.tensors[op.outputs[0].id][unit])
    return Explanation(op, unit, "sum", patch, kernel, inside, origin, bias, value)


Explainer = Callable[[Recording, Op, tuple[int, ...]], Explanation]
EXPLAINERS: Mapping[str, Explainer] = {
    "aten.convolution": _convolution,
    "aten.addmm": _linear,
    "aten.mm": _linear,
    "aten.max_pool2d_with_indices": _max_pool,
}


def _gather(x_CS: np.ndarray, taps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The patch of all channels at the taps of each axis, and which taps lie inside the input."""
    sizes = x_CS.shape[1:]
    inside = np.ones((len(x_CS), *map(len, taps)), bool)
    for axis, (t, n) in enumerate(zip(taps, sizes, strict=True)):
        inside &= ((t >= 0) & (t < n)).reshape([-1 if a == axis + 1 else 1 for a in range(inside.ndim)])
    clipped = np.ix_(*(np.clip(t, 0, n - 1) for t, n in zip(taps, sizes, strict=True)))
    return np.where(inside, x_CS[(slice(None), *clipped)], 0.0), inside


def _numpy(recording: Recording, op: Op, arg: str) -> np.ndarray:
    return recording.tensors[op.args[arg].id].to(torch.float64).cpu().numpy()


def _matrix(values: np.ndarray) -> np.ndarray:
    """As rows and columns: one row for a vector, leading kernel axes stacked."""
    return np.atleast_2d(values).reshape(-1, values.shape[-1])


def _block(name: str, values: np.ndarray, inside: np.ndarray) -> list[str]:
    """Lines of one matrix under its name: one exponent, fixed decimals, long rows cut in the middle."""
    if values.shape[1] > 9:
        shown = np.r_[0:4, values.shape[1] - 4 : values.shape[1]]
        values, inside = values[:, shown], inside[:, shown]
        name += " (first and last 4)"
    top = float(np.abs(values).max(initial=0.0))
    exponent = int(np.floor(np.log10(top))) if 0 < top < np.inf else 0
    exponent = 0 if -1 <= exponent <= 2 else exponent
    scaled = values / 10.0**exponent
    cells = [
        [number_fixed(v) if i else "." for v, i in zip(*row, strict=True)] for row in zip(scaled, inside, strict=True)
    ]
    width = max(len(c) for row in cells for c in row)
    lines = [" ".join(c.rjust(width) for c in row) for row in cells]
    title = name if exponent == 0 else f"{name}, x10^{exponent}"
    wide = max(len(title), *map(len, lines))
    return [title.ljust(wide), *(line.ljust(wide) for line in lines)]


def number_fixed(value: float) -> str:
    """Three decimals, with a true minus sign and no negative zero.

    >>> number_fixed(-0.0001), number_fixed(-1.5)
    ('0.000', '−1.500')
    """
    text = f"{value:.3f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text.replace("-", "\N{MINUS SIGN}")
