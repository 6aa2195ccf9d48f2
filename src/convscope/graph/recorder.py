"""The dispatch mode that sees every operator below autograd, and keeps the versions of each tensor apart."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.graph.packed import as_twin, is_packed, unpacked
from convscope.graph.values import Op, Role, Value, map_tensors, tensors_of

CHANGED = "convscope.changed.default"  # no operator: a tensor was changed through another view of its memory
_NORM = torch.ops.aten.native_batch_norm.default
_SHORTENED = {_NORM, torch.ops.aten.native_batch_norm_backward.default}


class View(NamedTuple):
    """Where the elements of a tensor lie in its block of memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


class Recorder(TorchDispatchMode):
    """Lists operators. It holds no tensor that the model lets go, so that it sees when each block is freed."""

    def __init__(self, keep: Callable[[Op], bool] | None, *, meta: bool) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.modules: list[str] = []
        self.tensors: dict[int, Tensor] = {}
        self.kept: set[int] = set()
        self.storages: dict[int, int] = {}
        self.failed: tuple[str, Exception] | None = None
        self._meta = meta
        self._keep = keep
        self.freed: dict[int, int] = {}  # a storage -> how many operators had run when it was let go
        self._count = 0
        self._known: dict[int, tuple[Value, ref[Tensor]]] = {}  # by the tensor's id, for as long as it lives
        self._blocks: dict[int, tuple[int, Any]] = {}  # torch's storage -> its number here, for as long as it lives
        self._writes: dict[int, list[tuple[View, tuple[Value, ...]]]] = {}  # by storage: the view, what it became
        self._fresh: dict[int, int] = {}  # a value's id -> how many writes to its storage it has seen
        self._lent: dict[int, list[int]] = {}  # by storage: kept tensors that share its memory
        self._packed: dict[str, tuple[Value | None, ...]] = {}  # by the path of a quantised layer
        self._sources: dict[int, list[Tensor]] = {}  # by storage: what must be as it was
        self._before: dict[int, list[tuple[Tensor, Tensor]]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not asked: compiled parts run eagerly while a model is recorded, and dynamo takes a second to import."""
        return False

    def source(self, tensor: Tensor, role: Role, name: str) -> Value:
        """The value of an input, a parameter or a buffer, which is put back after the pass."""
        made = self._value(tensor, role, name)
        if not self._meta:
            self._sources.setdefault(made.storage, []).append(tensor)
        return made

    def packed_source(self, path: str, held: Any) -> tuple[Value, ...]:
        """The values of the weight and the bias that a quantised layer holds packed."""
        names = zip(("weight", "bias"), unpacked(held), strict=False)
        path_of = f"{path}." if path else ""
        made = tuple(t if t is None else self._value(t, Role.PARAMETER, path_of + name) for name, t in names)
        self._packed[path] = made
        return tuple(v for v in made if v)

    def lookup(self, tensor: Tensor) -> Value:
        """The value that the tensor holds now; a tensor never seen is a constant of the model."""
        found = self._known.get(id(tensor))
        known = found[0] if found else self._value(tensor, Role.CONSTANT, "")
        if not found:
            self._lend(known, tensor)
        writes = self._writes.get(known.storage)
        if writes and self._fresh.get(known.id, 0) < len(writes):
            mine = _view(tensor)
            for view, made in writes[self._fresh.get(known.id, 0) :]:
                if _overlap(mine, view, self.storages[known.storage]):
                    known = self._changed(known, tensor, view, made)
            self._fresh[known.id] = len(writes)
        return known

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Afterwards, inputs, parameters and buffers hold what they held before."""
        try:
            yield
        finally:
            with torch.no_grad():
                for storage, saved in self._before.items():
                    self._keep_apart(storage)
                    for tensor, old in saved:
                        tensor.copy_(old)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        facts = _facts(func)
        if facts.composite:  # they come whole in inference mode
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        given = dict(zip(facts.names, args, strict=False)) | kwargs
        bound = {n: self._bind(given[n] if n in given else facts.defaults.get(n)) for n in facts.names}
        if facts.quantised:
            bound = self._twin(func, bound)
        written = [t for n in facts.written if n in given for t in tensors_of(given[n])]
        if facts.hidden_writes and given.get("training"):
            written = [t for n in ("running_mean", "running_var") for t in tensors_of(given.get(n))]
        read = list(tensors_of(_all_unpacked(args, kwargs))) if self._keep else []
        if written:
            read = [t.clone() for t in read]
        for tensor in written:
            self._before_write(tensor)
        result = _shortcut(func, given) or self._call(func, args, kwargs)
        self._add(Op(len(self.ops), str(func), self._module, bound, ()), list(tensors_of(result)), read, written)
        return result

    @property
    def _module(self) -> str:
        return self.modules[-1] if self.modules else ""

    def _twin(self, func: Any, bound: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a quantised operator, with the values of what is packed in its layer."""
        held = next((v for v in bound.values() if is_packed(v)), None)
        weights = self._packed.get(self._module)
        if held is not None and weights is None:  # packed outside of any layer: constants
            weights = tuple(t if t is None else self._value(t, Role.CONSTANT, "") for t in unpacked(held))
        return as_twin(func._schema.name, bound, weights)

    def _add(self, op: Op, made: list[Tensor], read: list[Tensor], written: list[Tensor]) -> None:
        """List the operator with the values that it made; what it wrote in place has a new version from here on."""
        if written:
            for tensor in written:
                self._writes.setdefault(self._storage(tensor), []).append((_view(tensor), op.inputs))
        op = Op(
            op.index, op.target, op.module, op.args, tuple(self._value(t, Role.ACTIVATION, op.module) for t in made)
        )
        for tensor in written:
            if any(tensor is t for t in made):
                self._writes[self._storage(tensor)][-1] = (_view(tensor), (self._known[id(tensor)][0],))
        self.ops.append(op)
        if self._keep and self._keep(op):
            self.kept |= {v.id for v in op.outputs}
            was_read = zip(op.inputs, read, strict=op.target != CHANGED)
            for value, tensor in (*was_read, *zip(op.outputs, made, strict=True)):
                if value.id not in self.tensors:
                    self._lend(value, tensor)

    def _changed(self, old: Value, tensor: Tensor, view: View, made: tuple[Value, ...]) -> Value:
        """The tensor's next version, with the write through another view as what it depends on."""
        box = len(made) == 1 and made[0].shape == view.shape
        args = {"self": old, "written": made, "start": _start(_view(tensor), view) if box else None}
        self._add(Op(len(self.ops), CHANGED, self._module, args, ()), [tensor], [], [])
        return self._known[id(tensor)][0]

    def _value(self, tensor: Tensor, role: Role, name: str) -> Value:
        storage = self._storage(tensor)
        made = Value(self._count, tuple(tensor.shape), tensor.dtype, role, name, storage)
        self._count += 1
        key = id(tensor)
        self._known[key] = made, ref(tensor, lambda _: self._known.pop(key, None))
        if storage in self._writes:
            self._fresh[made.id] = len(self._writes[storage])
        return made

    def _storage(self, tensor: Tensor) -> int:
        try:
            block = tensor.untyped_storage()
            key, size = block._cdata, block.nbytes()
        except RuntimeError:  # sparse and opaque tensors have none that can be asked
            block, key, size = tensor, -id(tensor), tensor.numel() * tensor.element_size()
        known = self._blocks.get(key)
        if known:
            self.storages[known[0]] = size
            return known[0]
        number = len(self.storages)
        self._blocks[key] = number, ref(block, lambda _: self._let_go(key, number))
        self.storages[number] = size
        return number

    def _let_go(self, key: int, number: int) -> None:
        self._blocks.pop(key, None)
        self.freed[number] = len(self.ops)

    def _lend(self, value: Value, tensor: Tensor) -> None:
        """Keep the tensor, sharing its memory until somebody writes there."""
        self.tensors[value.id] = tensor.detach()
        self._lent.setdefault(value.storage, []).append(value.id)

    def _before_write(self, tensor: Tensor) -> None:
        storage = self._storage(tensor)
        self._keep_apart(storage)
        if storage in self._sources and storage not in self._before:
            self._before[storage] = [(t, t.detach().clone()) for t in self._sources[storage]]

    def _keep_apart(self, storage: int) -> None:
        for value in self._lent.pop(storage, ()):
            self.tensors[value] = self.tensors[value].clone()

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operator's result; on meta tensors, the model's own constants are taken there too."""
        try:
            return func(*args, **kwargs)
        except Exception as error:
            if not self._meta or func._schema.is_mutable or not isinstance(error, RuntimeError):
                self.failed = (_shown(func, args), error)
                raise
            first = error
        there = [map_tensors(given, lambda t: t.to("meta")) for given in (args, kwargs)]
        try:
            return func(*there[0], **there[1])
        except Exception as error:
            self.failed = (_shown(func, args), error)
            raise error from first

    def _bind(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self.lookup(arg)
        if isinstance(arg, list | tuple):
            return tuple(self._bind(a) for a in arg)
        return arg


class _Facts:
    """What the schema of an operator says, looked up once."""

    __slots__ = ("composite", "defaults", "hidden_writes", "names", "quantised", "written")

    def __init__(self, func: Any) -> None:
        arguments = func._schema.arguments
        self.names = tuple(a.name for a in arguments)
        self.quantised = func.namespace == "quantized"
        self.defaults = {a.name: a.default_value for a in arguments if a.has_default_value()}
        self.written = tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)
        self.hidden_writes = "batch_norm" in func._schema.name and "running_mean" in self.names and not self.written
        self.composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _all_unpacked(args: Any, kwargs: Any) -> Any:
    """The arguments, with the tensors of what is packed in place of it."""
    return [unpacked(a) if is_packed(a) else a for a in (*args, *kwargs.values())]


@cache
def _facts(func: Any) -> _Facts:
    return _Facts(func)


def _shortcut(func: Any, given: dict[str, Any]) -> tuple[Tensor | None, ...] | None:
    """What batch normalisation and its gradient make on meta tensors, where PyTorch takes long to work it out."""
    x = given.get("input")
    if func not in _SHORTENED or x is None or not x.is_meta:
        return None
    like = next((t for t in (given["weight"], given["running_mean"]) if t is not None), x)
    if func is _NORM:
        channels = x.shape[1] if given["training"] else 0
        return torch.empty_like(x), like.new_empty(channels), like.new_empty(channels)
    made = torch.empty_like(x), like.new_empty(x.shape[1]), like.new_empty(x.shape[1])
    return tuple(t if wanted else None for t, wanted in zip(made, given["output_mask"], strict=True))


def _shown(func: Any, args: Any) -> str:
    """An operator that raised, with the shapes that it was given."""
    shapes = ", ".join("x".join(map(str, t.shape)) or "a scalar" for t in tensors_of(args))
    return f"{func._schema.name.rpartition(':')[2]} of {shapes}"


def _view(tensor: Tensor) -> View:
    if tensor.layout is not torch.strided:
        return View(tuple(tensor.shape), (), 0, tensor.dtype)
    return View(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), tensor.dtype)


def _overlap(a: View, b: View, size: int) -> bool:
    """Whether two views of one block of `size` bytes have an element in common."""
    count = size // a.dtype.itemsize
    if a == b or a.dtype != b.dtype or count > 2**28:  # the last is too large to look at: they may
        return True
    mask = np.zeros(count, dtype=bool)
    np.lib.stride_tricks.as_strided(mask[b.offset :], b.shape, b.stride)[...] = True
    return bool(np.lib.stride_tricks.as_strided(mask[a.offset :], a.shape, a.stride).any())


def _start(whole: View, part: View) -> tuple[int, ...] | None:
    """Where a view begins in another, if it is a box of it; None if it lies otherwise."""
    if whole.stride != part.stride:
        return None
    rest, start = part.offset - whole.offset, [0] * len(whole.shape)
    for axis in sorted(range(len(start)), key=lambda k: -whole.stride[k]):
        start[axis], rest = divmod(rest, whole.stride[axis]) if whole.stride[axis] else (0, rest)
    fits = all(s >= 0 and s + n <= m for s, n, m in zip(start, part.shape, whole.shape, strict=True))
    return tuple(start) if fits and rest == 0 else None
