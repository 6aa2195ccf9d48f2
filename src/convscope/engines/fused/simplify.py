"""What a program does without: what no picture changes is computed once, and normalisations and factors of channels
become part of the layer before them."""

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from convscope.engines.fused.program import Program, arguments, is_pure

CONV, LINEAR = "aten.conv2d.default", "aten.linear.default"
_NORM = "aten._native_batch_norm_legit_no_training.default"
_VIEWS = ("aten.view.default", "aten._unsafe_view.default")
PADS = ("aten.pad.default", "aten.constant_pad_nd.default")
MADE = "made of numbers: "  # before the names of tensors that are made of no weight
_NOTHING = ("aten.alias.default", "aten.detach.default", "aten.lift_fresh_copy.default", "aten.dropout.default")


def is_call(node: Any, *names: str) -> bool:
    """Whether the node calls one of these operators."""
    return isinstance(node, fx.Node) and node.op == "call_function" and str(node.target) in names


def fold(program: Program) -> int:
    """Fold each normalisation, and each factor of a channel, into the layer before it; how many normalisations."""
    count = 0
    _hold_constants(program)
    for node in [*program.graph.nodes]:
        if is_call(node, *_VIEWS):
            node.target = torch.ops.aten.reshape.default  # in channels last, not every view is one
        elif is_call(node, *_NOTHING) or (is_call(node, *PADS) and not any(arguments(node)[1])):
            node.replace_all_uses_with(arguments(node)[0])
        elif is_call(node, _NORM):
            count += _fold_norm(program, node)
        elif is_call(node, "aten.mul.Tensor"):
            _fold_factor(program, node)
    program.tidy()
    return count


def tensor_of(program: Program, node: Any) -> Tensor | None:
    """The tensor that the node names; None if it names none."""
    return program.tensors[str(node.target)] if isinstance(node, fx.Node) and node.op == "get_attr" else None


def _hold_constants(program: Program) -> None:
    """Compute once what does not depend on the input; what the network gives of it is a copy."""
    values: dict[fx.Node, Any] = {}
    weighted: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.op == "get_attr":
            values[node] = program.tensors[str(node.target)]
            weighted.add(node)
        elif is_pure(node) and all(n in values for n in node.all_input_nodes):
            given, named = map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*given, **named)
            weighted |= {node for n in node.all_input_nodes if n in weighted}
    for node, value in values.items():
        if node.op != "get_attr" and isinstance(value, Tensor) and any(u not in values for u in node.users):
            with program.graph.inserting_before(node):
                held = _held(program, node.name if node in weighted else MADE + node.name, value)
                copy = program.graph.call_function(torch.ops.aten.clone.default, (held,))
            for user in [*node.users]:
                user.replace_input_with(node, copy if user.op == "output" else held)
    program.tidy()


def _fold_norm(program: Program, node: fx.Node) -> bool:
    before, eps, readers = arguments(node)[0], arguments(node)[6], [*node.users]
    weight, bias, mean, var = (tensor_of(program, n) for n in arguments(node)[1:5])
    alone = is_call(before, CONV) and len(before.users) == 1
    if not alone or mean is None or var is None or any(n.args[1] != 0 for n in readers):
        return False
    scale = (var.double() + eps).rsqrt()
    scale = scale if weight is None else scale * weight.double()
    shift = -mean.double() * scale
    shift = shift if bias is None else shift + bias.double()
    if not _rescale(program, before, scale, shift):
        return False
    for reader in readers:
        reader.replace_all_uses_with(before)
    return True


def _fold_factor(program: Program, node: fx.Node) -> None:
    """x * s behind a layer, with axes exchanged between them or not."""
    value, factor = arguments(node)
    if tensor_of(program, factor) is None:
        value, factor = factor, value
    scale = tensor_of(program, factor)
    moved: Any = value if is_call(value, "aten.permute.default") else None
    layer: Any = value if moved is None else moved.args[0]
    if (
        scale is None
        or not is_call(layer, LINEAR, CONV)
        or any(n is not None and len(n.users) > 1 for n in (moved, layer))
    ):
        return
    dims = 4 if is_call(layer, CONV) else len(moved.args[1]) if moved is not None else 1
    axis = 1 if is_call(layer, CONV) else dims - 1
    if moved is not None:
        axis = [d % dims for d in moved.args[1]].index(axis)
    weight = tensor_of(program, layer.args[1])
    back = dims - axis  # the axis, counted from the last one
    if weight is None or back > scale.dim() or scale.shape[-back] != len(weight) or scale.numel() != len(weight):
        return
    if _rescale(program, layer, scale.flatten().double(), None):
        node.replace_all_uses_with(value)


def _rescale(program: Program, layer: Any, scale: Tensor, shift: Tensor | None) -> bool:
    """The layer's outputs times `scale`, plus `shift`, by other weights; False if they are no tensors of its own."""
    weight, bias = (
        tensor_of(program, n) for n in (arguments(layer)[1], arguments(layer)[2] if len(arguments(layer)) > 2 else None)
    )
    if weight is None:
        return False
    new = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
    added = shift if bias is None else bias.double() * scale + (0 if shift is None else shift)
    with program.graph.inserting_before(layer):
        parts: list[Any] = [_held(program, f"{layer.name}.weight", new.to(weight.dtype))]
        parts.append(None if added is None else _held(program, f"{layer.name}.bias", added.to(weight.dtype)))
    layer.args = (arguments(layer)[0], *parts, *arguments(layer)[3:])
    return True


def _held(program: Program, name: str, tensor: Tensor) -> fx.Node:
    program.tensors[name] = tensor
    return program.graph.get_attr(name)
