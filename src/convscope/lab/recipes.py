"""Recipes: how a page without a server makes any value of an operator anew, as plain data.

Where a place looks is asked of `explain`, once for every row and once for every column of the output: in a window,
rows do not know of columns. What no recipe is known for is shown without its arithmetic.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convscope.errors import InputError
from convscope.explain import Explanation, explain
from convscope.graph import Op, Recording, Value

Recipe = dict[str, Any]


def recipe(recording: Recording, op: Op) -> tuple[Recipe | None, tuple[Value, ...]]:
    """How each value of the operator's first output comes about, and the tensors that it needs; None if unknown.

    >>> import torch
    >>> from convscope.graph import record
    >>> recording = record(torch.nn.AvgPool2d(2), torch.ones(1, 1, 4, 4), keep=lambda op: True)
    >>> recipe(recording, recording.ops[0])[0]["rows"]
    [[0, 1], [2, 3]]
    """
    make = RECIPES.get(op.name.rstrip("_"))
    try:
        made = make(recording, op) if make else None
    except InputError:  # such as a division that rounds: explain says no, and so does the page
        return None, ()
    if made is None:
        return None, ()
    told, used = made
    return {"name": op.name, **{k: v.id if isinstance(v, Value) else v for k, v in told.items()}}, used


def _window(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]] | None:
    source = op.args.get("input", op.args.get("self"))
    if len(op.outputs[0].shape) != 4 or len(source.shape) != 4 or source.shape[0] != 1:
        return None
    first = explain(recording, op, unit=(0, 0, 0, 0))
    rows, columns = (_along(recording, op, axis) for axis in (2, 3))
    told: Recipe = {"kind": "window", "combine": first.combine, "source": source}
    told |= {"rows": [e.index_CKD[0, :, 0, 2].tolist() for e in rows if e.index_CKD is not None]}
    told |= {"columns": [e.index_CKD[0, 0, :, 3].tolist() for e in columns if e.index_CKD is not None]}
    if op.name != "convolution":
        corner = float(first.w_CK[0, 0, 0])
        if not corner:
            return None
        shares = {"row_weights": [e.w_CK[0, :, 0] for e in rows], "column_weights": [e.w_CK[0, 0] for e in columns]}
        told |= {"row_weights": [w.tolist() for w in shares["row_weights"]]}
        return told | {"column_weights": [(w / corner).tolist() for w in shares["column_weights"]]}, (source,)
    weight, bias = op.args["weight"], op.args["bias"]
    told |= {"weight": weight, "bias": bias, "groups": op.args["groups"], "transposed": op.args["transposed"]}
    return told, (source, weight, *([] if bias is None else [bias]))


def _along(recording: Recording, op: Op, axis: int) -> list[Explanation]:
    shape = op.outputs[0].shape
    units = np.zeros((shape[axis], len(shape)), int)
    units[:, axis] = range(shape[axis])
    return [explain(recording, op, unit=tuple(unit)) for unit in units.tolist()]


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
    numbers = {k: float(v) for k, v in op.args.items() if isinstance(v, int | float)}
    return {"kind": "function", "source": op.args["self"], "numbers": numbers}, (op.args["self"],)


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
    args = op.args
    if args.get("training"):
        return None
    parts = {"source": args["input"], "mean": args["running_mean"], "variance": args["running_var"],
             "scale": args["weight"], "shift": args["bias"]}  # fmt: skip
    return {"kind": "norm", "eps": float(args["eps"]), **parts}, tuple(v for v in parts.values() if v is not None)


def _copy(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]]:
    return {"kind": "copy", "source": op.args["self"]}, (op.args["self"],)


def _joined(recording: Recording, op: Op) -> tuple[Recipe, tuple[Value, ...]]:
    used = tuple(v for v in op.args["tensors"] if v.shape != (0,))
    return {"kind": "cat", "dim": op.args["dim"] % len(used[0].shape), "sources": [v.id for v in used]}, used


# An operator without its last underscore -> its recipe.
RECIPES: Mapping[str, Callable[[Recording, Op], tuple[Recipe, tuple[Value, ...]] | None]] = {
    "convolution": _window,
    "max_pool2d_with_indices": _window,
    "avg_pool2d": _window,
    "_adaptive_avg_pool2d": _window,
    "mean": _window,
    "upsample_bilinear2d": _window,
    "addmm": _row,
    "mm": _row,
    "relu": _function,
    "leaky_relu": _function,
    "hardtanh": _function,
    "sigmoid": _function,
    "tanh": _function,
    "silu": _function,
    "hardswish": _function,
    "hardsigmoid": _function,
    "add": _combined,
    "sub": _combined,
    "mul": _combined,
    "native_batch_norm": _norm,
    "view": _copy,
    "_unsafe_view": _copy,
    "clone": _copy,
    "alias": _copy,
    "detach": _copy,
    "cat": _joined,
}
