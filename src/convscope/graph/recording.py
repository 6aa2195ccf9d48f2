"""record(): the ATen operators that one forward pass runs, as plain data that everything else reads.

The pass runs on meta tensors first (shapes and types, no arithmetic, no memory), and on real ones when
that raises or when values are to be kept.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.errors import InputError, ModelError, nearest


class Role(StrEnum):
    """Where a value comes from."""

    INPUT = "input"
    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"
    ACTIVATION = "activation"


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor at one moment: an operator in place makes a new value of the same tensor."""

    id: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    role: Role
    name: str


@dataclass(frozen=True, slots=True)
class Op:
    """One ATen operator that ran. `args` are named as in its schema, with Values in place of tensors."""

    index: int
    target: str
    module: str
    args: Mapping[str, Any]
    outputs: tuple[Value, ...]

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The values among the arguments, in their order."""
        return tuple(_values((*self.args.values(),)))

    @property
    def name(self) -> str:
        """The operator as a person calls it: `aten.add_.Tensor` is `add_`."""
        return self.target.split(".")[1]


@dataclass(frozen=True, slots=True)
class Recording:
    """What one forward pass ran.

    `params` holds every parameter and buffer of the model, used or not, shared ones once; `trainable` the ids
    of those that take gradients. `tensors` maps ids to tensors: constants always, and whatever the operators
    chosen by `keep` read and made; `kept` holds the ids of what these made. `notes` says aloud what a reader
    should know.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    params: tuple[Value, ...]
    trainable: frozenset[int]
    tensors: Mapping[int, Tensor] = field(repr=False)
    kept: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()

    def find(self, layer: str | int) -> Op:
        """The operator of a layer: by its module path, the end of that path ("C3"), or the operator's index.

        A module that ran several operators answers with the last one.
        Raises: InputError with the nearest name if there is none, or with the candidates if there are several.
        """
        paths = list(dict.fromkeys(op.module for op in self.ops if op.module))
        if isinstance(layer, int) or (layer.isdecimal() and layer not in paths):
            if 0 <= int(layer) < len(self.ops):
                return self.ops[int(layer)]
            raise InputError(f"layer {layer}: the recording has operators 0 to {len(self.ops) - 1}; choose one of them")
        found = [p for p in paths if p == layer] or [p for p in paths if p.endswith(f".{layer}")]
        if len(found) > 1:
            raise InputError(f"layer {layer!r}: several modules end so: {', '.join(found)}; give the whole path")
        if not found:
            known = nearest(layer, {*paths, *(p.rpartition(".")[2] for p in paths)} if "." not in layer else paths)
            raise InputError(f"layer {layer!r}: no operator ran in a module of that name; {known}")
        return next(op for op in reversed(self.ops) if op.module == found[0])


def record(model: nn.Module, *example: Any, keep: Callable[[Op], bool] | None = None) -> Recording:
    """Run `model(*example)` once and return the operators that it ran.

    example: the model's inputs; tensors may stand inside lists, tuples and dicts.
    keep: for which operators the tensors that they read and make are kept (this needs real arithmetic).
    Nothing of the model changes: parameters, buffers, training flags, hooks, random state.
    Raises: ModelError if the forward pass raises.

    >>> recording = record(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.zeros(1, 1, 5, 5))
    >>> [(op.module, op.target, op.outputs[0].shape) for op in recording.ops]
    [('0', 'aten.convolution.default', (1, 2, 3, 3)), ('1', 'aten.relu.default', (1, 2, 3, 3))]
    """
    notes: tuple[str, ...] = ()
    if keep is None:
        try:
            return _run(model, example, meta=True)
        except Exception as error:  # whatever the model cannot do without values, it shows on real tensors
            notes = (f"recorded on real tensors, since meta tensors raised {_brief(error)}",)
    return _run(model, example, meta=False, keep=keep, notes=notes)


def replay(recording: Recording, model: nn.Module, *example: Any) -> tuple[Tensor, ...]:
    """Run the recorded operators one by one on real tensors; the outputs, flattened.

    That these are the model's own outputs is the test of a recording.
    """
    tensors: dict[int, Tensor] = dict(recording.tensors)
    tensors |= {v.id: t.clone() for v, t in zip(recording.inputs, _tensors(example), strict=True)}
    state = dict(model.named_parameters()) | {name: b.clone() for name, b in model.named_buffers()}
    tensors |= {v.id: state[v.name].detach() for v in recording.params}
    device = next((t.device for t in _tensors(example)), torch.device("cpu"))
    with torch.no_grad():
        for op in recording.ops:
            made = list(_tensors(call_of(op, tensors, device=device)()))
            tensors |= {v.id: t for v, t in zip(op.outputs, made, strict=True)}
    return tuple(tensors[v.id] for v in recording.outputs)


def call_of(op: Op, tensors: Mapping[int, Tensor], *, device: torch.device | None = None) -> Callable[[], Any]:
    """The operator as a call without arguments: on `tensors` (by the ids of Values), made on `device`."""
    function = function_of(op.target)
    args = {k: _swap(v, tensors, device or torch.device("cpu")) for k, v in op.args.items()}
    positional = [args[a.name] for a in function._schema.arguments if not a.kwarg_only]
    named = {a.name: args[a.name] for a in function._schema.arguments if a.kwarg_only}
    return lambda: function(*positional, **named)


@cache
def function_of(target: str) -> Any:
    """The overload of `torch.ops` by its name, such as `aten.add.Tensor`."""
    namespace, packet, overload = target.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), packet), overload)


class _Recorder(TorchDispatchMode):
    """Sees every operator below autograd, and keeps each tensor alive so that no id is used twice."""

    def __init__(self, keep: Callable[[Op], bool] | None, *, meta: bool) -> None:
        super().__init__()
        self._meta = meta
        self.ops: list[Op] = []
        self.modules: list[str] = []
        self.tensors: dict[int, Tensor] = {}
        self.kept: set[int] = set()
        self._keep = keep
        self._known: dict[int, Value] = {}
        self._alive: list[Tensor] = []
        self._count = 0

    def value(self, tensor: Tensor, role: Role, name: str) -> Value:
        """A new value for the tensor as it is now."""
        made = Value(self._count, tuple(tensor.shape), tensor.dtype, role, name)
        self._count += 1
        self._known[id(tensor)] = made
        self._alive.append(tensor)
        return made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        bound = {k: self._bind(v) for k, v in _named(func, args, kwargs).items()}
        read = list(_tensors((args, kwargs))) if self._keep else []
        if func._schema.is_mutable:
            read = [t.clone() for t in read]
        result = _shortcut(func, args) or self._call(func, args, kwargs)
        module = self.modules[-1] if self.modules else ""
        outputs = tuple(self.value(t, Role.ACTIVATION, module) for t in _tensors(result))
        op = Op(len(self.ops), str(func), module, bound, outputs)
        self.ops.append(op)
        if self._keep and self._keep(op):
            self.kept |= {v.id for v in outputs}
            self.tensors |= {v.id: t.detach() for v, t in zip(op.inputs, read, strict=True)}
            self.tensors |= {v.id: t.detach().clone() for v, t in zip(outputs, _tensors(result), strict=True)}
        return result

    def lookup(self, tensor: Tensor) -> Value:
        """The value that the tensor holds now; a tensor never seen is a constant of the model."""
        known = self._known.get(id(tensor))
        if known is None:
            known = self.value(tensor, Role.CONSTANT, "")
            self.tensors[known.id] = tensor.detach()
        return known

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operator's result; on meta tensors, the model's own constants are taken there too."""
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            if not self._meta or func._schema.is_mutable:
                raise
            there = [_map(given, lambda t: t.to("meta")) for given in (args, kwargs)]
            return func(*there[0], **there[1])

    def _bind(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self.lookup(arg)
        if isinstance(arg, list | tuple):
            return tuple(self._bind(a) for a in arg)
        return arg


def _run(
    model: nn.Module, example: Any, *, meta: bool, keep: Callable[[Op], bool] | None = None, notes: tuple[str, ...] = ()
) -> Recording:
    recorder = _Recorder(keep, meta=meta)
    parameters = dict(model.named_parameters())
    state: dict[str, Tensor] = parameters | dict(model.named_buffers())
    if meta:
        state = {name: t.to("meta") for name, t in state.items()}
        example = _map(example, lambda t: t.to("meta"))
    params = tuple(
        recorder.value(t, Role.PARAMETER if name in parameters else Role.BUFFER, name) for name, t in state.items()
    )
    inputs = tuple(recorder.value(t, Role.INPUT, f"input{i or ''}") for i, t in enumerate(_tensors(example)))
    with torch.no_grad(), _unchanged(model, example, meta), _module_paths(model, recorder.modules), recorder:
        try:
            result = torch.func.functional_call(model, state, example) if meta else model(*example)
        except Exception as error:
            where = recorder.modules[-1] if recorder.modules else "the model"
            shapes = ", ".join("x".join(map(str, v.shape)) for v in inputs)
            raise ModelError(f"{where} raised {_brief(error)} on input {shapes}; check the input's shape") from error
        outputs = tuple(recorder.lookup(t) for t in _tensors(result))
    trainable = frozenset(v.id for v in params if v.name in parameters and parameters[v.name].requires_grad)
    ops, kept = _used(recorder.ops, outputs), frozenset(recorder.kept)
    escaped = sum(op.name == "_local_scalar_dense" for op in ops)
    if escaped:
        notes += (f"{escaped} values became Python numbers (.item()): what depends on them is not followed",)
    return Recording(ops, inputs, outputs, params, trainable, recorder.tensors, kept, notes)


def _used(ops: list[Op], outputs: tuple[Value, ...]) -> tuple[Op, ...]:
    """Without the tensors that a kernel made for itself and nobody read; indices renewed."""
    read = {v.id for op in ops for v in op.inputs} | {v.id for v in outputs}
    used = [op for op in ops if op.inputs or any(v.id in read for v in op.outputs)]
    return tuple(Op(i, op.target, op.module, op.args, op.outputs) for i, op in enumerate(used))


@contextmanager
def _unchanged(model: nn.Module, example: Any, meta: bool) -> Iterator[None]:
    """Random state, attributes, buffers and inputs as they were, and attention without its fused shortcut."""
    mha = torch.backends.mha
    fast = mha.get_fastpath_enabled()
    kept = [] if meta else [*model.buffers(), *_tensors(example)]
    before = [t.detach().clone() for t in kept]
    attributes = [(m, dict(m.__dict__)) for m in model.modules()]
    mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        mha.set_fastpath_enabled(fast)
        for module, old in attributes:  # such as anchors that a detector remembers
            module.__dict__.clear()
            module.__dict__.update(old)
        with torch.no_grad():
            for tensor, old in zip(kept, before, strict=True):
                if not torch.equal(tensor, old):
                    tensor.copy_(old)


@contextmanager
def _module_paths(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """While a submodule runs, its path is on the stack."""
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if path:
                before = module.register_forward_pre_hook(lambda *_, path=path: stack.append(path))
                hooks.callback(before.remove)
                after = module.register_forward_hook(lambda *_: stack.pop() and None)
                hooks.callback(after.remove)
        yield


def _shortcut(func: Any, args: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """What normalisation by running statistics gives on meta tensors, where PyTorch takes long to work it out."""
    if func is not torch.ops.aten.native_batch_norm.default or not args[0].is_meta or args[5]:
        return None
    return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)


@cache
def _schema(func: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    arguments = func._schema.arguments
    return tuple(a.name for a in arguments), {a.name: a.default_value for a in arguments if a.has_default_value()}


def _named(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    names, defaults = _schema(func)
    given = dict(zip(names, args, strict=False)) | kwargs
    return {n: given[n] if n in given else defaults.get(n) for n in names}


def _swap(arg: Any, tensors: Mapping[int, Tensor], device: torch.device) -> Any:
    if isinstance(arg, Value):
        return tensors[arg.id]
    if isinstance(arg, torch.device):
        return device
    if isinstance(arg, tuple):
        return [_swap(a, tensors, device) for a in arg]
    return arg


def _values(items: tuple[Any, ...]) -> Iterator[Value]:
    for item in items:
        if isinstance(item, Value):
            yield item
        elif isinstance(item, tuple):
            yield from _values(item)


def _tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors of nested lists, tuples, dicts and dataclasses, in order."""
    if isinstance(tree, Tensor):
        yield tree
        return
    items: Any = ()
    if isinstance(tree, list | tuple):
        items = tree
    elif isinstance(tree, Mapping):
        items = tree.values()
    elif is_dataclass(tree) and not isinstance(tree, type):
        items = [getattr(tree, f.name) for f in fields(tree)]
    for item in items:
        yield from _tensors(item)


def _map(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {k: _map(v, change) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_map(v, change) for v in tree)
    return tree


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
