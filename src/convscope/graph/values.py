"""What a recording is made of: values, operators, and the recording itself, as frozen data."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from convscope.errors import InputError, nearest
from convscope.table import Column, Table

NUMBERS = "numbers"  # the argument of an operator that holds the values which it was given as Python numbers


class Role(StrEnum):
    """Where a value comes from."""

    INPUT = "input"
    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"
    ACTIVATION = "activation"


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor at one moment: an operator in place makes a new value of the same tensor.

    Values of one `storage` (a number of `Recording.storages`) share their memory.
    """

    id: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    role: Role
    name: str
    storage: int = -1


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
        """The values among the arguments, in their order; those that came as Python numbers last."""
        return tuple(values_of((*self.args.values(),)))

    @property
    def name(self) -> str:
        """The operator as a person calls it: `aten.add_.Tensor` is `add_`."""
        return self.target.split(".")[1]

    @property
    def is_own(self) -> bool:
        """Whether PyTorch ran nothing: it tells of a write through another view, of values that left or came back."""
        return self.target.startswith("convscope.")


@dataclass(frozen=True, slots=True)
class Recording:
    """What one forward pass ran.

    `params` holds every parameter and buffer of the model, used or not, shared ones once; `trainable` the ids
    of those that take gradients. `tensors` maps ids to tensors: constants always, and whatever the operators
    chosen by `keep` read and made; `kept` holds the ids of what these made. `notes` says aloud what a reader
    should know. `storages` maps the number of each block of memory to its bytes, `freed` to the operator before
    which the model let it go (empty where tensors were kept). Where the backward pass was recorded too, it begins
    at operator `backward_from`, and `gradients` are those of the trainable parameters.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    params: tuple[Value, ...]
    trainable: frozenset[int]
    tensors: Mapping[int, Tensor] = field(repr=False)
    kept: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    storages: Mapping[int, int] = field(default_factory=dict, repr=False)
    freed: Mapping[int, int] = field(default_factory=dict, repr=False)
    gradients: tuple[Value, ...] = ()
    backward_from: int | None = None

    def table(self) -> Table:
        """One row an operator: where it ran, what it read, what it made."""
        columns = (("index", "#"), ("module", "module"), ("op", "operator"), ("reads", "reads"), ("makes", "makes"))
        rows = tuple(
            {"index": op.index, "module": op.module, "op": op.name, "reads": _shapes(op.inputs),
             "makes": _shapes(op.outputs)} for op in self.ops
        )  # fmt: skip
        return Table(tuple(Column(*c) for c in columns), rows, notes=self.notes)

    def _repr_html_(self) -> str:
        return self.table().html()

    def find(self, layer: str | int) -> Op:
        """The operator of a layer: by its module path, the end of that path ("C3"), or the operator's index.

        A module that ran several operators answers with the last one; one that ran none itself, with the last that
        ran inside it.
        Raises: InputError with the nearest name if there is none, or with the candidates if there are several.
        """
        paths = list(dict.fromkeys(op.module for op in self.ops if op.module))
        above = list(dict.fromkeys(up for p in paths for up in _parents(p)))
        if isinstance(layer, int) or (layer.isdecimal() and layer not in {*paths, *above}):
            if 0 <= int(layer) < len(self.ops):
                return self.ops[int(layer)]
            raise InputError(f"layer {layer}: the recording has operators 0 to {len(self.ops) - 1}; choose one of them")
        found = _named(layer, paths) or _named(layer, above)
        if len(found) > 1:
            raise InputError(f"layer {layer!r}: several modules end so: {', '.join(found)}; give the whole path")
        if not found:
            known = nearest(layer, {*paths, *(p.rpartition(".")[2] for p in paths)} if "." not in layer else paths)
            raise InputError(f"layer {layer!r}: no operator ran in a module of that name; {known}")
        inside = "" if found[0] in paths else f"{found[0]}."
        return next(
            op for op in reversed(self.ops) if op.module == found[0] or (inside and op.module.startswith(inside))
        )


def _named(layer: str, paths: list[str]) -> list[str]:
    return [p for p in paths if p == layer] or [p for p in paths if p.endswith(f".{layer}")]


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition(".")[0]:
        yield path


def _shapes(values: tuple[Value, ...]) -> str:
    return ", ".join("x".join(map(str, v.shape)) or "scalar" for v in values)


def values_of(items: tuple[Any, ...]) -> Iterator[Value]:
    """The values of nested tuples, in order."""
    for item in items:
        if isinstance(item, Value):
            yield item
        elif isinstance(item, tuple):
            yield from values_of(item)


def tensors_of(tree: Any) -> Iterator[Tensor]:
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
        yield from tensors_of(item)


def map_tensors(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting with every tensor changed."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {k: map_tensors(v, change) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(v, change) for v in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map_tensors(v, change) for v in tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: map_tensors(getattr(tree, f.name), change) for f in fields(tree) if f.init})
    return tree
