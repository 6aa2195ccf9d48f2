"""summarize(): the operators of a recording with their shapes, parameters, MACs and receptive fields."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import prod
from typing import Any

from convscope.graph import RULES, Op, OpRule, Recording, Role, Value, moved_bytes, rule_of
from convscope.inspect.memory import MIB, Memory, allocated, memory
from convscope.inspect.receptive_field import Field, fields
from convscope.table import Column, Table

COLUMNS = (
    Column("name", "layer"),
    Column("op", "operator"),
    Column("output_shape", "output"),
    Column("params", "params"),
    Column("macs", "MACs"),
    Column("activation", "activation", "MiB"),
    Column("field", "receptive field", "px"),
    Column("stride", "stride", "px"),
)


@dataclass(frozen=True, slots=True)
class Operator:
    """One row: an operator, what it makes, what it costs, what it sees.

    `params` are credited to the first operator that reads them. `macs` is None where no rule is known.
    `activation_bytes` is the memory that it makes, `bytes_moved` what it reads and writes if each value crosses once.
    `receptive_field` is None where the output does not depend on the first input. Its `size`, `stride` and `padding`
    are those of the local field, None where there is none; `global_through` names the modules through which every unit
    also sees the whole input. `phases`: the size is the largest of several (up-sampling); `bound`: it may be smaller.
    """

    index: int
    module: str
    op: str
    output_shape: tuple[int, ...]
    dtype: str
    params: int
    trainable_params: int
    macs: int | None
    activation_bytes: int
    bytes_moved: int
    receptive_field: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over the network. `macs` is a lower bound if `unknown` names operators without a rule.

    `activation_bytes` are of all operators, `memory` and `training_memory` the peaks; the latter is None where no
    training step was recorded.
    """

    params: int
    trainable_params: int
    macs: int
    unknown: tuple[str, ...]
    activation_bytes: int
    bytes_moved: int
    memory: Memory
    training_memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """The answer of `summarize`: rows, totals and what should be said with them."""

    total: Total
    operators: tuple[Operator, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()

    def table(self, *, title: str = "") -> Table:
        """One row an operator, in the order in which they ran, without those that only prepare weights."""
        least = "≥ " if self.total.unknown else ""
        macs = f"{least}{self.total.macs:,}" if least else self.total.macs
        return Table(
            COLUMNS,
            tuple(_row(o) for o in self.operators if o.receptive_field or o.params or o.macs),
            title=title,
            total={
                "name": "total",
                "params": self.total.params,
                "macs": macs,
                "activation": self.total.activation_bytes / MIB,
            },
            notes=self.remarks,
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """The sentences below the table: peak memory, what is not counted, what the recording says."""
        total = self.total
        peak = f"peak memory for inference: {total.memory.text}"
        if total.training_memory:
            peak += f"; for a training step: {total.training_memory.text}"
        counts = Counter(o.op for o in self.operators if o.macs is None)
        named = ", ".join(f"{op} ({n} times)" if n > 1 else op for op, n in sorted(counts.items()))
        return (
            peak,
            *([f"no rule for {named}: their MACs are not counted"] if counts else ()),
            *_field_notes(self.operators),
            *self.notes,
        )

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: `total`, `operators`, `input_shapes`, `notes`."""
        return asdict(self)

    def __str__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        from convscope.inspect.page import fragment  # it draws summaries

        return fragment(self)


def summarize(
    recording: Recording, *, rules: Mapping[str, OpRule] = RULES, training: Recording | None = None
) -> Summary:
    """What the recording says of every operator and of the whole network.

    Units: parameters and MACs are counts, memory is bytes, fields are elements of the first input.
    `rules` may be extended: `rules=RULES | {"my.op": OpRule(...)}`. `training` is a recording of the same model
    with its backward pass, for the memory of a training step.
    """
    field_of = fields(recording, rules=rules) if recording.inputs else {}
    spent = _spent(recording)
    operators = tuple(_operator(recording, op, spent.get(op.index, []), field_of, rules) for op in recording.ops)
    parameters = [v for v in recording.params if v.role is Role.PARAMETER]
    read = {v.id for values in spent.values() for v in values}
    unused = [v.name for v in parameters if v.id not in read]
    notes = (f"parameters that no operator read: {', '.join(unused[:6])}{', ...' if len(unused) > 6 else ''}",)
    total = Total(
        params=sum(prod(v.shape) for v in parameters),
        trainable_params=sum(prod(v.shape) for v in parameters if v.id in recording.trainable),
        macs=sum(o.macs or 0 for o in operators),
        unknown=tuple(sorted({o.op for o in operators if o.macs is None})),
        activation_bytes=sum(o.activation_bytes for o in operators),
        bytes_moved=sum(o.bytes_moved for o in operators),
        memory=memory(recording),
        training_memory=memory(training) if training else None,
    )
    shapes = tuple(v.shape for v in recording.inputs)
    return Summary(total, operators, shapes, recording.notes + (notes if unused else ()))


def _spent(recording: Recording) -> dict[int, list[Value]]:
    """The parameters that each operator (by index) is the first to compute with.

    An operator that reads parameters alone (the transpose before a product) only prepares them for the next.
    """
    carried: dict[int, tuple[Value, ...]] = {v.id: (v,) for v in recording.params if v.role is Role.PARAMETER}
    passive = {v.id for v in recording.params}
    spent: dict[int, list[Value]] = {}
    seen: set[int] = set()
    for op in recording.ops:
        held = [p for v in op.inputs for p in carried.get(v.id, ())]
        if held and all(v.id in passive for v in op.inputs):
            carried |= {v.id: tuple(held) for v in op.outputs}
            passive |= {v.id for v in op.outputs}
            continue
        spent[op.index] = [p for p in dict.fromkeys(held) if p.id not in seen]
        seen |= {p.id for p in held}
    return spent


def _operator(
    recording: Recording, op: Op, params: list[Value], field_of: Mapping[int, Field], rules: Mapping[str, OpRule]
) -> Operator:
    rule = rule_of(op, rules=rules)
    out = op.outputs[0] if op.outputs else None
    field = field_of.get(out.id) if out else None
    shown = _shown(field) if field else None
    return Operator(
        index=op.index,
        module=op.module,
        op=op.name,
        output_shape=out.shape if out else (),
        dtype=str(out.dtype).removeprefix("torch.") if out else "",
        params=sum(prod(v.shape) for v in params),
        trainable_params=sum(prod(v.shape) for v in params if v.id in recording.trainable),
        macs=rule.macs(op) if rule else None,
        activation_bytes=allocated(recording, op),
        bytes_moved=moved_bytes(recording, op),
        receptive_field=shown,
    )


def _shown(field: Field) -> dict[str, Any]:
    """Its numbers; of the local field None where there is none, or where they are no numbers of all units."""
    local = field.is_local
    stride, padding = (field.stride, field.padding) if local else (None, None)
    return {
        "size": field.size if local else None,
        "stride": stride and tuple(map(_plain, stride)),
        "padding": padding,
        "global_through": field.global_through,
        "bound": field.is_bound,
        "phases": field.has_phases,
    }


def _plain(value: Fraction | int) -> int | float:
    return value if isinstance(value, int) else float(value)


def _row(o: Operator) -> dict[str, Any]:
    field = o.receptive_field or {}
    return {
        "name": o.module or "(model)",
        "op": o.op,
        "output_shape": o.output_shape,
        "params": o.params or None,
        "macs": (o.macs or None) if o.macs is not None else "?",
        "field": seen(field) if field else None,
        "stride": field.get("stride"),
        "activation": o.activation_bytes / MIB or None,
    }


def _field_notes(operators: tuple[Operator, ...]) -> tuple[str, ...]:
    """What must be said of the receptive fields."""
    known = [o.receptive_field for o in operators if o.receptive_field]
    notes = {
        "phases": "behind an up-sampling the units of a map differ: shown is their largest receptive field",
        "bound": "≤: units may see less, for an operator moves them in a way that is not followed",
    }
    return tuple(text for key, text in notes.items() if any(field[key] for field in known))


def seen(field: dict[str, Any]) -> str:
    """The local field, and after it whether everything is seen as well."""
    least = "≤ " if field["bound"] else ""
    local = least + "x".join(map(str, field["size"])) if field["size"] else ""
    return " + ".join(part for part in (local, "whole input" if field["global_through"] else "") if part)
