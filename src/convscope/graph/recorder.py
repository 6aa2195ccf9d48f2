"""The dispatch mode that sees every operator below autograd, and keeps the versions of each tensor apart."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.graph.escapes import RETURNED, TAKEN
from convscope.graph.packed import as_twin, is_packed, unpacked
from convscope.graph.values import NUMBERS, Op, Role, Value, map_tensors, tensors_of
from convscope.graph.views import View, box_of, overlap, view_of

CHANGED = "convscope.changed.default"  # no operator: a tensor was changed through another view of its memory
_NORM = torch.ops.aten.native_batch_norm.default
_SHORTENED = {_NORM, torch.ops.aten.native_batch_norm_backward.default}
_ITEM = torch.ops.aten._local_scalar_dense.default
_CONVOLUTION = torch.ops.aten.convolution.default
_ON_GPUS = torch.ops.aten.cudnn_batch_norm.default  # the same as _NORM, its arguments in the same order
_SCRIPTED = torch.ops.aten._convolution.default  # what scripts call it, with arguments for other devices behind


class Recorder(TorchDispatchMode):
    """Lists operators. It holds no tensor that the model lets go, so that it sees when each block is freed."""

    supports_higher_order_operators = True

    def __init__(
        self, keep: Callable[[Op], bool] | None, *, meta: bool, real: bool = True, old: Iterable[Tensor] = ()
    ) -> None:
        """meta: to run on tensors without values; real: though the model has some; old: constants of the model."""
        super().__init__()
        self.ops: list[Op] = []
        self.modules: list[str] = []
        self.tensors: dict[int, Tensor] = {}
        self.kept: set[int] = set()
        self.storages: dict[int, int] = {}
        self.failed: tuple[str, Exception] | None = None
        self.meta = meta
        self.ignored: tuple[str, ...] = ()
        self._real = real
        self._keep = keep
        self.freed: dict[int, int] = {}  # a storage -> how many operators had run when it was let go
        self._count = 0
        self._known: dict[int, tuple[Value, ref[Tensor]]] = {}  # by the tensor's id, for as long as it lives
        self._blocks: dict[int, tuple[int, Any]] = {}  # torch's storage -> its number here, for as long as it lives
        self._writes: dict[int, list[tuple[View, tuple[Value, ...]]]] = {}  # by storage: the view, what it became
        self._fresh: dict[int, int] = {}  # a value's id -> how many writes to its storage it has seen
        self._lent: dict[int, list[int]] = {}  # by storage: kept tensors that share its memory
        self._escaped: list[Value] = []  # what left as Python numbers or arrays, or came back of it
        self._numbers: dict[float, Value] = {}  # fractions that left, to know them again
        self._old = {id(t): t for t in old}
        self._packed: dict[str, tuple[Value | None, ...]] = {}  # by the path of a quantised layer
        self._sources: dict[int, list[Tensor]] = {}  # by storage: what must be as it was
        self._before: dict[int, list[tuple[Tensor, Tensor]]] = {}

    @property
    def tensors_are_kept(self) -> bool:
        """Whether tensors outlive the moment at which the model lets them go."""
        return self._keep is not None

    def lack(self, error: BaseException) -> str:
        """What could not be done without values: the operator that needs them, or what was raised."""
        failed = self.failed[0].split(" of ")[0] if self.failed and self.failed[1] is error else ""
        needs = ".item()" if failed == "_local_scalar_dense" else failed
        return f"{needs} needs values" if failed else f"without values it raised {brief(error)}"

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not asked: compiled parts run eagerly while a model is recorded, and dynamo takes a second to import."""
        return False

    def source(self, tensor: Tensor, role: Role, name: str) -> Value:
        """The value of an input, a parameter or a buffer, which is put back after the pass."""
        made = self._value(tensor, role, name)
        if not self.meta:
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
        known = found[0] if found else self._constant(tensor)
        writes = self._writes.get(known.storage)
        if writes and self._fresh.get(known.id, 0) < len(writes):
            mine = view_of(tensor)
            for view, made in writes[self._fresh.get(known.id, 0) :]:
                if overlap(mine, view, self.storages[known.storage]):
                    known = self._changed(known, tensor, view, made)
            self._fresh[known.id] = len(writes)
        return known

    def take(self, tensor: Tensor) -> None:
        """The tensor's values leave PyTorch: whatever tensor appears from nowhere later may hold them."""
        value = self.lookup(tensor)
        self._escaped.append(value)
        self._add(Op(len(self.ops), TAKEN, self._module, {"self": value}, ()), [], [], [])

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
        if isinstance(func, HigherOrderOperator):  # a branch, a loop: what it runs is recorded
            with self:
                return _run_inside(func, args, kwargs)
        if func is _SCRIPTED:
            func, args = _CONVOLUTION, args[:9]
        facts = _facts(func)
        if facts.composite:  # they come whole in inference mode
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if self.meta and _in_autocast():
            self._see_autocast()
        return self._run(func, facts, args, kwargs)

    def _run(self, func: Any, facts: "_Facts", args: Any, kwargs: Any) -> Any:
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
        if self._numbers:
            bound |= self._again(bound)
        if func is _ITEM and args[0].dtype != torch.bool:  # a truth value chooses a branch: that is not followed
            self._number(bound["self"], result)
        made = list(tensors_of(result))
        if func is _ON_GPUS and not bound["training"]:
            func, bound, made = _NORM, dict(zip(_facts(_NORM).names, bound.values(), strict=True)), made[:3]
        self._add(Op(len(self.ops), str(func), self._module, bound, ()), made, read, written)
        return result

    def _see_autocast(self) -> None:
        """Tensors without values keep their types under autocast: real ones are needed, if there are any."""
        self.ignored = ("tensors without values do not follow autocast: types are as without it",)
        if self._real:
            error = RuntimeError(self.ignored[0])
            self.failed = ("autocast", error)
            raise error

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
                self._writes.setdefault(self._storage(tensor), []).append((view_of(tensor), op.inputs))
        op = Op(
            op.index, op.target, op.module, op.args, tuple(self._value(t, Role.ACTIVATION, op.module) for t in made)
        )
        for tensor in written:
            if any(tensor is t for t in made):
                self._writes[self._storage(tensor)][-1] = (view_of(tensor), (self._known[id(tensor)][0],))
        self.ops.append(op)
        if self._keep and self._keep(op):
            self.kept |= {v.id for v in op.outputs}
            was_read = zip(op.inputs, read, strict=False)  # numbers that were tensors once come last
            for value, tensor in (*was_read, *zip(op.outputs, made, strict=True)):
                if value.id not in self.tensors:
                    self._lend(value, tensor)

    def _changed(self, old: Value, tensor: Tensor, view: View, made: tuple[Value, ...]) -> Value:
        """The tensor's next version, with the write through another view as what it depends on."""
        box = box_of(view_of(tensor), view) if len(made) == 1 and made[0].shape == view.shape else None
        args = {"self": old, "written": made, "start": box and box[0], "axes": box and box[1]}
        self._add(Op(len(self.ops), CHANGED, self._module, args, ()), [tensor], [], [])
        return self._known[id(tensor)][0]

    def _constant(self, tensor: Tensor) -> Value:
        """A tensor never seen: a constant of the model, unless values left before, of which it may be made."""
        if self._escaped and id(tensor) not in self._old:
            self._add(Op(len(self.ops), RETURNED, self._module, {"read": tuple(self._escaped)}, ()), [tensor], [], [])
            made = self._known[id(tensor)][0]
            self._escaped = [made]
        else:
            made = self._value(tensor, Role.CONSTANT, "")
        self._lend(made, tensor)
        return made

    def _number(self, value: Value, number: Any) -> None:
        self._escaped.append(value)
        if isinstance(number, float) and not number.is_integer():
            self._numbers[number] = value

    def _again(self, bound: dict[str, Any]) -> dict[str, Any]:
        """The values that left as those very numbers which are arguments now."""
        found = [self._numbers[a] for a in bound.values() if isinstance(a, float) and a in self._numbers]
        return {NUMBERS: tuple(found)} if found else {}

    def _value(self, tensor: Tensor, role: Role, name: str) -> Value:
        if tensor.is_nested:
            raise TypeError("a nested tensor has no one shape and is not recorded; pad it to one that has")
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
            if not self.meta or func._schema.is_mutable or not isinstance(error, RuntimeError):
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


def _in_autocast() -> bool:
    """Whether the model is inside an autocast context, be it on or off: below the dispatcher that is not told."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting() > 0


def _run_inside(func: HigherOrderOperator, args: Any, kwargs: Any) -> Any:
    """What a branch, a loop or another operator on functions makes, by running the functions that it is given."""
    if func.name() == "cond":
        which, yes, no, *operands = *args, *kwargs.values()
        return (yes if which else no)(*operands[0])
    return func.py_kernels[DispatchKey.CompositeExplicitAutograd](*args, **kwargs)


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


def brief(error: BaseException) -> str:
    """An error in one line: its kind, and the first sentence of what it says."""
    lines = str(error).strip().splitlines()
    said = lines[0].partition(". ")[0] if lines else "no message"
    return f"{type(error).__name__}: {said}"
