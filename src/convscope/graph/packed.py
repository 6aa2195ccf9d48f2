"""Quantised operators under the arguments of their float twins: what PyTorch packs into one object is unpacked."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_TWINS = {
    **{f"quantized::conv{n}d{relu}": {"qx": "input"} for n in (2, 3) for relu in ("", "_relu")},
    **{f"quantized::conv_transpose{n}d": {"qx": "input"} for n in (2, 3)},
    **{f"quantized::linear{relu}": {"X": "input"} for relu in ("", "_relu", "_dynamic", "_relu_dynamic")},
    "quantized::cat": {"qx": "tensors"},
}
_OF_CONVOLUTION = {"stride": "stride", "padding": "padding", "dilation": "dilation", "transposed": "transpose",
                   "output_padding": "output_padding", "groups": "groups"}  # fmt: skip


def is_packed(held: Any) -> bool:
    """Whether it is a weight and a bias that PyTorch has packed for a quantised operator."""
    return isinstance(held, torch.ScriptObject) and held._has_method("unpack")  # pyright: ignore[reportAttributeAccessIssue]


def unpacked(held: Any) -> tuple[Tensor | None, ...]:
    """The weight and the bias, if there is one."""
    made: Any = held.unpack()  # pyright: ignore[reportAttributeAccessIssue]
    return (made,) if isinstance(made, Tensor) else tuple(made)


def packed_in(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """What is packed in a model's layers, with the path of the layer."""
    for path, module in model.named_modules():
        for held in vars(module).values():
            if is_packed(held):
                yield path.removesuffix("_packed_params").removesuffix("."), held


def as_twin(name: str, bound: Mapping[str, Any], weights: tuple[Any, ...] | None) -> dict[str, Any]:
    """The arguments under the names that the float operator has, the packed object among them as it is.

    `weights` are the values of what is packed; with None the arguments stay as they are.
    """
    renamed = _TWINS.get(name, {})
    held = next((v for v in bound.values() if is_packed(v)), None)
    twin = {renamed.get(key, key): value for key, value in bound.items()}
    if held is None or weights is None:
        return twin
    first = next(iter(twin))
    twin = {first: twin[first], "weight": weights[0], "bias": weights[1] if len(weights) > 1 else None, **twin}
    if "conv" in name:
        read = {key: getattr(held, method)() for key, method in _OF_CONVOLUTION.items()}
        twin |= {key: tuple(value) if isinstance(value, list) else value for key, value in read.items()}
    return twin


def own_names(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with those of the operator's own schema beside them."""
    return {**args, **{own: args[twin] for own, twin in _TWINS.get(name, {}).items() if twin in args}}
