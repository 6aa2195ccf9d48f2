"""Operators without a window: arithmetic, activations, normalisation, softmax, and what only moves values."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from convscope.errors import InputError
from convscope.explain.terms import Explanation, Term
from convscope.explain.windows import Asked, broadcast_index
from convscope.graph import Op, Value
from convscope.table import number

Combine = Literal["sum", "copy", "product", "function"]


def addition(sign: int) -> Callable[[Asked], Explanation]:
    """self + sign x alpha x other."""

    def explain(asked: Asked) -> Explanation:
        weight = sign * float(asked.op.args["alpha"])
        return _named(asked, "sum", (_operand(asked, "self"), _operand(asked, "other", weight)))

    return explain


def reversed_subtraction(asked: Asked) -> Explanation:
    """other - alpha x self."""
    weight = -float(asked.op.args["alpha"])
    return _named(asked, "sum", (_operand(asked, "other"), _operand(asked, "self", weight)))


def product(asked: Asked) -> Explanation:
    """self x other: each factor carries the whole."""
    a, b = _operand(asked, "self"), _operand(asked, "other")
    return _product(asked, (a.label, a, b.value), (b.label, b, a.value), result=a.value * b.value)


def quotient(asked: Asked) -> Explanation:
    """self / other: each carries the whole."""
    a, b = _operand(asked, "self"), _operand(asked, "other")
    if asked.op.args.get("rounding_mode"):
        raise InputError(
            f"explain {asked.op.module or asked.op.name}: division that rounds has no explanation yet; "
            "choose another layer"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        result = float(np.float64(a.value) / np.float64(b.value))
        inverse = float(1 / np.float64(b.value))
    return _product(asked, ("numerator", a, inverse), ("denominator", b, None), result=result)


def activation(asked: Asked) -> Explanation:
    """The operator itself, in double precision, on the one value that it read."""
    x = asked.term("x", asked.op.args["self"], index=asked.unit, weight=None)
    read = torch.tensor(x.value, dtype=torch.float64)
    result = float(_run(asked.op, {"self": read}))
    term = Term("x", x.source, x.index, x.value, None, result)
    return _named(asked, "function", (term,), result=result, formula=f"{asked.op.name}({number(x.value)})")


def viewed(asked: Asked) -> Explanation:
    """The operator itself, on a tensor without values: its strides say which element stands at the unit."""
    source = asked.op.args["self"]
    made = _run(asked.op, {"self": torch.empty(source.shape, device="meta")})
    made = made if isinstance(made, Tensor) else made[asked.output]
    flat = int(made.storage_offset()) + sum(i * step for i, step in zip(asked.unit, made.stride(), strict=True))
    return _copied(asked, source, tuple(int(i) for i in np.unravel_index(flat, source.shape)))


def moved(asked: Asked) -> Explanation:
    """The operator itself, on the number of each element: which one came here."""
    source = asked.op.args["self"]
    flat = _origin(asked, {"self": _numbered(source.shape)})
    return _copied(asked, source, tuple(int(i) for i in np.unravel_index(flat, source.shape)))


def same_place(asked: Asked) -> Explanation:
    """A copy, or a conversion to the type of the output."""
    x = asked.term("copy", asked.op.args["self"], index=asked.unit)
    result = float(torch.tensor(x.value, dtype=torch.float64).to(asked.op.outputs[0].dtype))
    return _named(asked, "copy", (replace(x, contribution=result),), result=result)


def nearest(asked: Asked) -> Explanation:
    """The operator itself, on the number of each element of one map: which one came here."""
    source, ndim = asked.op.args["self"], len(asked.op.args["output_size"])
    sizes = source.shape[-ndim:]
    grid = _numbered((1, 1, *sizes)).to(torch.float32 if prod(sizes) < 2**24 else torch.float64)
    flat = int(_run(asked.op, {"self": grid})[(0, 0, *asked.unit[-ndim:])])
    index = (*asked.unit[:-ndim], *(int(i) for i in np.unravel_index(flat, sizes)))
    return _copied(asked, source, index)


def padded(asked: Asked) -> Explanation:
    """An element of the input, or the number that it was padded with."""
    source = asked.op.args["self"]
    flat = _origin(asked, {"self": _numbered(source.shape), "value": -1})
    if flat < 0:
        filled = asked.term("padding", float(asked.op.args["value"]), index=())
        return _named(asked, "copy", (filled,), result=filled.value)
    return _copied(asked, source, tuple(int(i) for i in np.unravel_index(flat, source.shape)))


def joined(asked: Asked) -> Explanation:
    """Which of the joined tensors the value came from."""
    tensors = [v for v in asked.op.args["tensors"] if v.shape != (0,)]
    dim, unit = asked.op.args["dim"] % len(asked.unit), list(asked.unit)
    which = 0
    while unit[dim] >= tensors[which].shape[dim]:
        unit[dim] -= tensors[which].shape[dim]
        which += 1
    return _copied(asked, tensors[which], tuple(unit), label=f"input {which} of {len(tensors)}")


def stacked(asked: Asked) -> Explanation:
    """Which of the stacked tensors the value came from."""
    tensors = asked.op.args["tensors"]
    dim = asked.op.args["dim"] % len(asked.unit)
    which, index = asked.unit[dim], (*asked.unit[:dim], *asked.unit[dim + 1 :])
    return _copied(asked, tensors[which], index, label=f"input {which} of {len(tensors)}")


def batch_norm(asked: Asked) -> Explanation:
    """(x - mean) / sqrt(variance + eps) x scale + shift, by running statistics."""
    args, channel = asked.op.args, (asked.unit[1],)
    if args.get("training"):
        raise InputError(
            f"explain {asked.op.module or asked.op.name}: normalisation by the statistics of the batch has no "
            "explanation yet; call model.eval() before recording"
        )
    mean = asked.term("mean", args["running_mean"], index=channel)
    variance = asked.term("variance", args["running_var"], index=channel, weight=None)
    return _normalised(asked, "input", (mean, variance), channel)


def layer_norm(asked: Asked) -> Explanation:
    """(x - mean) / sqrt(variance + eps) x scale + shift, over the last axes."""
    ndim = len(asked.op.args["normalized_shape"])
    values = asked.array("input", asked.unit[: len(asked.unit) - ndim])
    return _normalised(asked, "input", _statistics(asked, values), asked.unit[len(asked.unit) - ndim :])


def group_norm(asked: Asked) -> Explanation:
    """(x - mean) / sqrt(variance + eps) x scale + shift, over the channels of a group and all places."""
    sample, channel = asked.unit[:2]
    size = asked.op.args["input"].shape[1] // asked.op.args["group"]
    first = channel // size * size
    values = asked.array("input", (sample, slice(first, first + size)))
    return _normalised(asked, "input", _statistics(asked, values), (channel,))


def softmax(asked: Asked) -> Explanation:
    """exp(x - max) over the sum of all such terms along the axis."""
    powers, sum_, x = _powers(asked)
    own = asked.unit[asked.op.args["dim"] % len(asked.unit)]
    result = float(powers[own]) / sum_
    terms = [
        Term(f"{'own ' if i == own else ''}exp(x - max) = {number(float(p))}", x.source, at, value, None,
             result if i == own else 0.0)
        for i, (p, (at, value)) in enumerate(zip(powers, _along(asked), strict=True))
    ]  # fmt: skip
    formula = f"{number(float(powers[own]))} / {number(sum_)}, the sum of the exp terms"
    return _named(asked, "function", tuple(terms), result=result, formula=formula)


def log_softmax(asked: Asked) -> Explanation:
    """x - max less the logarithm of the sum of exp(x - max) along the axis."""
    _, sum_, x = _powers(asked)
    top = max(value for _, value in _along(asked))
    log = float(np.log(sum_))
    terms = (
        x,
        Term("max", None, (), top, -1.0, -top),
        Term("log of the sum of exp(x - max)", None, (), log, -1.0, -log),
    )
    return _named(asked, "sum", terms)


def _powers(asked: Asked) -> tuple[np.ndarray, float, Term]:
    """exp(x - max) along the axis, their sum, and the term of the unit's own x."""
    values = np.array([value for _, value in _along(asked)])
    powers = np.exp(values - values.max())
    return powers, float(powers.sum()), asked.term("x", asked.op.args["self"], index=asked.unit)


def _along(asked: Asked) -> list[tuple[tuple[int, ...], float]]:
    """Index and value of every element along the axis of a softmax."""
    dim = asked.op.args["dim"] % len(asked.unit)
    before, after = asked.unit[:dim], asked.unit[dim + 1 :]
    values = asked.array("self", (*before, slice(None), *after))
    return [((*before, i, *after), float(v)) for i, v in enumerate(values)]


def _statistics(asked: Asked, values: np.ndarray) -> tuple[Term, Term]:
    """Mean and variance, worked out from what was read."""
    counted = f"of {values.size:,} values"
    return (
        asked.term(f"mean {counted}", float(values.mean()), index=()),
        asked.term(f"variance {counted}", float(values.var()), index=(), weight=None),
    )


def _normalised(asked: Asked, arg: str, statistics: tuple[Term, Term], index: tuple[int, ...]) -> Explanation:
    """x and the mean weighted by scale / sqrt(variance + eps), and the shift."""
    args, (mean, variance) = asked.op.args, statistics
    scale = asked.term("scale", 1.0 if args["weight"] is None else args["weight"], index=index, weight=None)
    shift = asked.term("shift", 0.0 if args["bias"] is None else args["bias"], index=index)
    eps = float(args["eps"])
    weight = scale.value / float(np.sqrt(variance.value + eps))
    x = asked.term("x", args[arg], index=asked.unit, weight=weight)
    mean = Term(mean.label, mean.source, mean.index, mean.value, -weight, -mean.value * weight)
    n = {t.label: number(t.value) for t in (x, scale, shift)}
    formula = (
        f"({n['x']} - {number(mean.value)}) / sqrt({number(variance.value)} + {number(eps)}) "
        f"x {n['scale']} + {n['shift']}"
    )
    return _named(asked, "sum", (x, mean, variance, scale, shift), formula=formula)


def _operand(asked: Asked, arg: str, weight: float = 1.0) -> Term:
    """An operand, which may be broadcast, or a number."""
    source = asked.op.args[arg]
    if isinstance(source, Value):
        return asked.term(arg, source, index=broadcast_index(source, asked.unit), weight=weight)
    return asked.term("number", float(source), index=(), weight=weight)


def _product(asked: Asked, *factors: tuple[str, Term, float | None], result: float) -> Explanation:
    terms = tuple(Term(label, t.source, t.index, t.value, weight, result) for label, t, weight in factors)
    return _named(asked, "product", terms, result=result)


def _copied(asked: Asked, source: Any, index: tuple[int, ...], *, label: str = "copy") -> Explanation:
    term = asked.term(label, source, index=index)
    return _named(asked, "copy", (term,), result=term.value)


def _named(
    asked: Asked, combine: Combine, terms: tuple[Term, ...], *, result: float | None = None, formula: str = ""
) -> Explanation:
    x, w = np.array([[t.value] for t in terms]), np.array([[t.weight or 0.0] for t in terms])
    return Explanation(
        asked.op, asked.unit, combine, x, w, np.ones(x.shape, bool), (), 0.0, asked.model_value,
        named=terms, result=result, formula=formula,
    )  # fmt: skip


def _numbered(shape: tuple[int, ...]) -> Tensor:
    return torch.arange(prod(shape)).reshape(shape)


def _origin(asked: Asked, replaced: Mapping[str, Any]) -> int:
    made = _run(asked.op, replaced)
    return int((made if isinstance(made, Tensor) else made[asked.output])[asked.unit])


def _run(op: Op, replaced: Mapping[str, Any]) -> Any:
    """The operator once more, with other arguments in place of some."""
    function: Any = reduce(getattr, op.target.split(".")[1:], torch.ops.aten)
    args = {**op.args, **replaced}
    schema = function._schema.arguments
    return function(
        *(args[a.name] for a in schema if not a.kwarg_only), **{a.name: args[a.name] for a in schema if a.kwarg_only}
    )
