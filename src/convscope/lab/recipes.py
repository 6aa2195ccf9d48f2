"""Recipes: how a page without a server makes any value of an operator anew, as plain data.

Where a place looks is asked of `explain`, once for every index of each axis of the output: in a window, rows do not
know of columns. What no recipe is known for is shown without its arithmetic.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from convscope.errors import InputError
from convscope.explain import Explanation, explain
from convscope.explain.operators import explainer_of
from convscope.graph import Op, Recording, Value

Recipe = dict[str, Any]


def recipe(recording: Recording, op: Op) -> tuple[Recipe | None, tuple[Value, ...]]:
    """How each value of the operator's first output comes about, and the tensors that it needs; None if unknown.

    >>> import torch
    >>> from convscope.graph import record
    >>> recording = record(torch.nn.AvgPool2d(2), torch.ones(1, 1, 4, 4), keep=lambda op: True)
    >>> recipe(recording, recording.ops[0])[0]["taps"]
    [[[0, 1], [2, 3]], [[0, 1], [2, 3]]]
    """
    make = RECIPES.get(op.name.rstrip("_")) if explainer_of(op) else None
    try:
        made = make(recording, op) if make else None
    except InputError:  # such as a division that rounds: explain says no, and so does the page
        return None, ()
    if made is None:
        return None, ()
    told, used = made
    return {"name": op.name, **{k: v.id if isinstance(v, Value) else v for k, v in told.items()}}, used


def _window(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]] | None:
    """A patch of one, two or three axes: where its elements stand along each, and their weights."""
    source = op.args.get("input", op.args.get("self"))
    first = explain(recording, op, unit=(0,) * len(op.outputs[0].shape))
    axes = range(len(source.shape) - 2)
    same = len(source.shape) == len(op.outputs[0].shape) and source.shape[0] == 1
    if not same or first.index_CKD is None or first.index_CKD.ndim != len(axes) + 2:
        return None
    along = [_along(recording, op, 2 + axis) for axis in axes]
    taps = [
        [_line(e.index_CKD[0, ..., 2 + axis], axis) for e in line if e.index_CKD is not None]
        for axis, line in enumerate(along)
    ]
    told: Recipe = {"kind": "window", "combine": first.combine, "source": source, "taps": taps}
    if op.name != "convolution":
        corner = float(first.w_CK.flat[0])
        if not corner:
            return None
        parts = [[_line(e.w_CK[0], axis) for e in line] for axis, line in enumerate(along)]
        return told | {"shares": [parts[0], *([[w / corner for w in ws] for ws in part] for part in parts[1:])]}, (
            source,
        )
    weight, bias = op.args["weight"], op.args["bias"]
    told |= {"weight": weight, "bias": bias, "groups": op.args["groups"], "transposed": op.args["transposed"]}
    return told, (source, weight, *([] if bias is None else [bias]))


def _line(grid: np.ndarray, axis: int) -> list[Any]:
    """What a grid says along one of its axes, at the start of the others."""
    return np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)[:, 0].tolist()


def _along(recording: Recording, op: Op, axis: int) -> list[Explanation]:
    shape = op.outputs[0].shape
    units = np.zeros((shape[axis], len(shape)), int)
    units[:, axis] = range(shape[axis])
    return [explain(recording, op, unit=tuple(unit)) for unit in units.tolist()]


def _nearest(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]]:
    """Which element along each axis a value is a copy of."""
    source = op.args["self"]
    taps = [[e.named[0].index[axis] for e in _along(recording, op, axis)] for axis in range(2, len(source.shape))]
    return {"kind": "nearest", "source": source, "taps": taps}, (source,)


def _strided(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]] | None:
    """A view or a copy: where it begins in what it was made of, and the step of each axis."""
    source, shape = op.args["self"], op.outputs[0].shape
    if not prod(shape):
        return None

    def flat(unit: tuple[int, ...]) -> int:
        return int(np.ravel_multi_index(explain(recording, op, unit=unit).named[0].index, source.shape))

    start = flat((0,) * len(shape))
    ones = [tuple(int(a == axis) for a in range(len(shape))) for axis in range(len(shape))]
    steps = [flat(one) - start if n > 1 else 0 for one, n in zip(ones, shape, strict=True)]
    return {"kind": "strided", "source": source, "start": start, "steps": steps}, (source,)


def _row(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]] | None:
    """A row times a matrix, and the bias."""
    with_bias = op.name == "addmm"
    left, right = (op.args[k] for k in (("mat1", "mat2") if with_bias else ("self", "mat2")))
    if with_bias and (op.args["beta"], op.args["alpha"], len(op.args["self"].shape)) != (1, 1, 1):
        return None
    bias = op.args["self"] if with_bias else None
    used = (left, right, *([] if bias is None else [bias]))
    return {"kind": "row", "source": left, "weight": right, "bias": bias}, used


def _function(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]]:
    settings = {k: v for k, v in op.args.items() if isinstance(v, int | float | str)}
    return {"kind": "function", "source": op.args["self"], "settings": settings}, (op.args["self"],)


def _combined(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]]:
    kind = "product" if op.name.startswith("mul") else "sum"
    weights = {"self": 1.0, "other": (-1.0 if op.name.startswith("sub") else 1.0) * float(op.args.get("alpha", 1))}
    used = tuple(v for k in weights if isinstance(v := op.args[k], Value))
    terms = [
        {"label": k if isinstance(v, Value) else "number", "source": v.id if isinstance(v, Value) else None,
         "number": None if isinstance(v, Value) else float(v), "weight": w}
        for k, w in weights.items() for v in [op.args[k]]
    ]  # fmt: skip
    return {"kind": kind, "terms": terms}, used


def _norm(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]] | None:
    """By running statistics of a channel, or by those of the last axes, or of a group of channels."""
    args = op.args
    if args.get("training"):
        return None
    parts = {"source": args["input"], "scale": args["weight"], "shift": args["bias"]}
    told: Recipe = {"kind": "norm", "eps": float(args["eps"])}
    if op.name == "native_batch_norm":
        parts |= {"mean": args["running_mean"], "variance": args["running_var"]}
    elif op.name == "native_layer_norm":
        told["last"] = len(args["normalized_shape"])
    else:
        told["groups"] = args["group"]
    return told | parts, tuple(v for v in parts.values() if v is not None)


def _softmax(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]]:
    source = op.args["self"]
    return {"kind": "softmax", "source": source, "dim": op.args["dim"] % len(source.shape)}, (source,)


def _joined(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]]:
    used = tuple(v for v in op.args["tensors"] if v.shape != (0,))
    return {"kind": "cat", "dim": op.args["dim"] % len(used[0].shape), "sources": [v.id for v in used]}, used


# An operator without its last underscore -> its recipe.
RECIPES: Mapping[str, Callable[[Recording, Op], tuple[Recipe, tuple[Value, ...]] | None]] = {
    "addmm": _row,
    "mm": _row,
    "add": _combined,
    "sub": _combined,
    "mul": _combined,
    "cat": _joined,
    **dict.fromkeys((
        "convolution", "mean", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d",
        "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "upsample_linear1d", "upsample_bilinear2d",
        "upsample_trilinear3d",
    ), _window),
    **dict.fromkeys((
        "relu", "leaky_relu", "elu", "hardtanh", "clamp", "clamp_min", "sigmoid", "tanh", "silu", "hardswish",
        "hardsigmoid", "gelu", "mish", "softplus", "exp", "log", "sqrt", "rsqrt", "neg", "abs",
    ), _function),
    **dict.fromkeys(("native_batch_norm", "native_layer_norm", "native_group_norm"), _norm),
    **dict.fromkeys(("_softmax", "_log_softmax"), _softmax),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), _nearest),
    **dict.fromkeys((
        "view", "_unsafe_view", "clone", "alias", "detach", "permute", "transpose", "t", "expand", "slice", "select",
        "squeeze", "unsqueeze", "split", "split_with_sizes", "unbind",
    ), _strided),
}  # fmt: skip
