"""replay(): the operators of a recording, run one by one."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from convscope.graph.packed import own_names
from convscope.graph.recorder import CHANGED
from convscope.graph.values import Op, Recording, Value, tensors_of


def replay(recording: Recording, model: nn.Module, *example: Any) -> tuple[Tensor, ...]:
    """Run the recorded operators one by one on real tensors; the outputs, flattened, then the gradients if recorded.

    That these are the model's own outputs is the test of a recording.
    """
    tensors = {id: t.clone() for id, t in recording.tensors.items()}
    tensors |= {v.id: t.clone() for v, t in zip(recording.inputs, tensors_of(example), strict=True)}
    model = getattr(model, "_orig_mod", model)
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    tensors |= {v.id: state[v.name].detach().clone() for v in recording.params if v.name in state}
    device = next((t.device for t in tensors_of(example)), torch.device("cpu"))
    with torch.no_grad():
        for op in recording.ops:
            if op.target == CHANGED:  # the write itself was replayed
                tensors[op.outputs[0].id] = tensors[op.args["self"].id]
            if op.is_own:
                continue
            made = list(tensors_of(call_of(op, tensors, device=device)()))
            tensors |= {v.id: t for v, t in zip(op.outputs, made, strict=True)}
    return tuple(tensors[v.id] for v in (*recording.outputs, *recording.gradients))


def call_of(op: Op, tensors: Mapping[int, Tensor], *, device: torch.device | None = None) -> Callable[[], Any]:
    """The operator as a call without arguments: on `tensors` (by the ids of Values), made on `device`."""
    function = function_of(op.target)
    wanted = {a.name for a in function._schema.arguments}
    given = own_names(function._schema.name, op.args).items()
    args = {k: _swap(v, tensors, device or torch.device("cpu")) for k, v in given if k in wanted}
    positional = [args[a.name] for a in function._schema.arguments if not a.kwarg_only]
    named = {a.name: args[a.name] for a in function._schema.arguments if a.kwarg_only}
    return lambda: function(*positional, **named)


@cache
def function_of(target: str) -> Any:
    """The overload of `torch.ops` by its name, such as `aten.add.Tensor`."""
    namespace, packet, overload = target.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), overload)


def _swap(arg: Any, tensors: Mapping[int, Tensor], device: torch.device) -> Any:
    if isinstance(arg, Value):
        return tensors[arg.id]
    if isinstance(arg, torch.device):
        return device
    if isinstance(arg, tuple):
        return [_swap(a, tensors, device) for a in arg]
    return arg
