"""record(): the ATen operators that one forward pass runs, as plain data that everything else reads.

The pass runs on meta tensors first (shapes and types, no arithmetic, no memory), and on real ones when
that raises or when values are to be kept.
"""

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from convscope.errors import ModelError
from convscope.graph.escapes import held_by, left, watched
from convscope.graph.packed import packed_in
from convscope.graph.recorder import Recorder, brief
from convscope.graph.untouched import untouched
from convscope.graph.values import Op, Recording, Role, Value, map_tensors, tensors_of
from convscope.machine import same_randomness

Given = tuple[tuple[Any, ...], dict[str, Any]]  # the inputs of a model: those by place, those by name


def record(
    model: nn.Module,
    *example: Any,
    named: Mapping[str, Any] | None = None,
    keep: Callable[[Op], bool] | None = None,
    backward: bool = False,
) -> Recording:
    """Run `model(*example, **named)` once and return the operators that it ran.

    example, named: the model's inputs; tensors may stand inside lists, tuples, dicts and dataclasses.
    keep: for which operators the tensors that they read and make are kept (this needs real arithmetic).
    backward: record a training step: training mode, then the gradients of the summed outputs.
    Nothing of the model changes: parameters, buffers, training flags, hooks, random state. What `torch.compile`
    made is recorded as the model under it; a lazy model on a copy that has its shapes.
    Raises: ModelError if the forward pass raises.

    >>> recording = record(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.zeros(1, 1, 5, 5))
    >>> [(op.module, op.target, op.outputs[0].shape) for op in recording.ops]
    [('0', 'aten.convolution.default', (1, 2, 3, 3)), ('1', 'aten.relu.default', (1, 2, 3, 3))]
    """
    notes: tuple[str, ...] = ()
    with torch.inference_mode(False):
        model = getattr(model, "_orig_mod", model)
        given: Given = map_tensors((example, dict(named or {})), lambda t: t.clone() if t.is_inference() else t)
        if any(nn.parameter.is_lazy(t) for t in (*model.parameters(), *model.buffers())):
            model = _with_shapes(model, given)
            notes = ("recorded on a copy, since the model is lazy: its own parameters have no shapes yet",)
        if keep is None:
            real = not any(t.is_meta for t in (*model.parameters(), *tensors_of(given)))
            without = Recorder(None, meta=True, real=real)
            try:
                return _run(model, given, without, backward=backward, notes=notes)
            except Exception as error:  # whatever the model cannot do without values, it shows on real tensors
                if not real:
                    raise
                notes += (f"recorded on real tensors, since {without.lack(error.__cause__ or error)}",)
        return _run(model, given, Recorder(keep, meta=False, old=held_by(model)), backward=backward, notes=notes)


def _run(
    model: nn.Module, given: Given, recorder: Recorder, *, backward: bool, notes: tuple[str, ...] = ()
) -> Recording:
    parameters = dict(model.named_parameters())
    state: dict[str, Tensor] = parameters | dict(model.named_buffers())
    if recorder.meta:
        state = {name: t.detach().to("meta").requires_grad_(t.requires_grad) for name, t in state.items()}
        given = map_tensors(given, lambda t: t.detach().to("meta"))
    params = tuple(
        recorder.source(t, Role.PARAMETER if name in parameters else Role.BUFFER, name) for name, t in state.items()
    )
    params += tuple(v for path, held in packed_in(model) for v in recorder.packed_source(path, held))
    inputs = tuple(recorder.source(t, Role.INPUT, f"input{i or ''}") for i, t in enumerate(tensors_of(given)))
    wanted = [state[v.name] for v in params if v.name in parameters and parameters[v.name].requires_grad]
    with torch.set_grad_enabled(backward), _eager(), untouched(model), recorder.restoring():
        if backward:
            model.train()
        made = list(_forward(model, state, given, recorder))
        outputs = tuple(recorder.lookup(t) for t in made)
        begin = len(recorder.ops)
        gradients = _gradients(recorder, made, wanted) if backward else ()
        freed = dict(recorder.freed)
    trainable = frozenset(v.id for v in params if v.name in parameters and parameters[v.name].requires_grad)
    del made
    ops, before = _used(recorder.ops, (*outputs, *gradients))
    return Recording(
        ops,
        inputs,
        outputs,
        params,
        trainable,
        recorder.tensors,
        frozenset(recorder.kept),
        (*notes, *recorder.ignored, *left(ops)),
        recorder.storages,
        {} if recorder.tensors_are_kept else {storage: before[count] for storage, count in freed.items()},
        gradients,
        before[begin] if backward else None,
    )


def _forward(model: nn.Module, state: dict[str, Tensor], given: Given, recorder: Recorder) -> Iterator[Tensor]:
    """The tensors of what the model returns, while its operators are recorded."""
    doors = nullcontext() if recorder.meta else watched(recorder.take)  # there is nothing to take of meta tensors
    with _module_paths(model, recorder.modules), recorder, doors:
        try:
            result = torch.func.functional_call(model, state, *given) if recorder.meta else model(*given[0], **given[1])
        except Exception as error:
            raise ModelError(_sentence(error, recorder, model, given)) from error
    yield from tensors_of(result)


def _gradients(recorder: Recorder, made: list[Tensor], wanted: list[Tensor]) -> tuple[Value, ...]:
    """The gradients of the summed outputs, with the operators that make them."""
    made = [t for t in made if t.requires_grad]
    if not made or not wanted:
        return ()
    with recorder:
        ones = [torch.ones_like(t) for t in made]
        try:
            found = torch.autograd.grad(made, wanted, ones, allow_unused=True)
        except Exception as error:
            raise ModelError(
                f"backward pass: raised {brief(error)}; use operators with a derivative, or record without backward"
            ) from error
    return tuple(recorder.lookup(t) for t in found if t is not None)


def _used(ops: list[Op], outputs: tuple[Value, ...]) -> tuple[tuple[Op, ...], list[int]]:
    """Without the tensors that a kernel made for itself and nobody read; how many are left of the first n."""
    read = {v.id for op in ops for v in op.inputs} | {v.id for v in outputs}
    used = [bool(op.inputs) or any(v.id in read for v in op.outputs) for op in ops]
    before = [0, *accumulate(used)]
    if all(used):
        return tuple(ops), before
    return tuple(
        Op(before[op.index], op.target, op.module, op.args, op.outputs)
        for op, wanted in zip(ops, used, strict=True)
        if wanted
    ), before


def _with_shapes(model: nn.Module, given: Given) -> nn.Module:
    """A copy of a lazy model that has run once, and so has its parameters."""
    lazy = [b for b in model.buffers() if nn.parameter.is_lazy(b)]  # these alone cannot be copied
    model = copy.deepcopy(model, {id(b): nn.UninitializedBuffer() for b in lazy})
    with torch.no_grad(), same_randomness(tensors_of(given)):
        try:
            model(*given[0], **given[1])
        except Exception as error:
            raise ModelError(f"model: is lazy and raised {brief(error)}; check the input's shape") from error
    return model


@contextmanager
def _eager() -> Iterator[None]:
    """Compiled parts run as what they were compiled from, and attention without its fused shortcut."""
    mha = torch.backends.mha
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            yield
        finally:
            mha.set_fastpath_enabled(fast)


@contextmanager
def _module_paths(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """While a submodule runs, its path is on the stack."""
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if path and not isinstance(module, torch.jit.ScriptModule):  # a script takes no hooks
                before = module.register_forward_pre_hook(lambda *_, path=path: stack.append(path))
                hooks.callback(before.remove)
                after = module.register_forward_hook(lambda *_: stack.pop() and None)
                hooks.callback(after.remove)
        yield


def _sentence(error: Exception, recorder: Recorder, model: nn.Module, given: Given) -> str:
    """Where a forward pass raised, what, on which shapes, and what to do."""
    missing = _missing(model, given) if isinstance(error, TypeError) else ""
    if missing:
        return missing
    where = recorder.modules[-1] if recorder.modules else "the model"
    failed = f" in {recorder.failed[0]}" if recorder.failed and recorder.failed[1] is error else ""
    shapes = ", ".join("x".join(map(str, t.shape)) for t in tensors_of(given)) or "without tensors"
    return f"{where} raised {brief(error)}{failed} on input {shapes}; check the input's shape"


def _missing(model: nn.Module, given: Given) -> str:
    """The sentence for a forward that takes other inputs than were given; empty if it takes these."""
    signature, count = inspect.signature(model.forward), len(given[0]) + len(given[1])
    try:
        signature.bind(*given[0], **given[1])
    except TypeError as error:
        return (
            f"the model's forward{signature} cannot take {count} input{'s'[: count != 1]} ({error}); "
            "give each of its inputs"
        )
    return ""
