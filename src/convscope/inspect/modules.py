"""rolled(): the costs of a summary per module, to any depth."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from convscope.inspect.memory import MIB
from convscope.inspect.summary import Operator, Summary, seen
from convscope.table import Column, Table

COLUMNS = (
    Column("name", "module"),
    Column("operators", "operators"),
    Column("output_shape", "output"),
    Column("dtype", "dtype"),
    Column("params", "params"),
    Column("trainable", "trainable"),
    Column("macs", "MACs"),
    Column("activation", "activation", "MiB"),
    Column("moved", "moved", "MiB"),
    Column("intensity", "MACs/byte"),
    Column("field", "receptive field", "px"),
    Column("stride", "stride", "px"),
)


@dataclass(frozen=True, slots=True)
class ModuleCost:
    """What the operators of one module, and of all below it, cost. `macs` is a lower bound if some are `unknown`.

    `output_shape`, `dtype` and `receptive_field` are those of the last operator.
    """

    path: str
    operators: int
    output_shape: tuple[int, ...]
    dtype: str
    params: int
    trainable_params: int
    macs: int
    unknown: tuple[str, ...]
    activation_bytes: int
    bytes_moved: int
    receptive_field: dict[str, Any] | None = field(compare=False)

    @property
    def intensity(self) -> float | None:
        """MACs per byte that is read or written; None if nothing is."""
        return self.macs / self.bytes_moved if self.bytes_moved else None


@dataclass(frozen=True, slots=True)
class Rolled:
    """The modules of a network in the order in which they first ran, cut at a depth."""

    depth: int
    modules: tuple[ModuleCost, ...]
    total: ModuleCost
    notes: tuple[str, ...]

    def table(self, *, title: str = "") -> Table:
        """One row a module, and the sum; the type where there are several, what is trainable where not all is."""
        rows, total = tuple(map(_row, self.modules)), _row(self.total)
        some = {key for key in total if any(row[key] is not None for row in (*rows, total))}
        left_out = {"dtype"} if len({m.dtype for m in self.modules}) < 2 else set()
        columns = tuple(c for c in COLUMNS if c.key in some - left_out)
        return Table(columns, rows, title=title, total=total | {"field": None, "stride": None}, notes=self.notes)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: `depth`, `modules`, `total`, `notes`."""
        return asdict(self)

    def __str__(self) -> str:
        return self.table().text()


def rolled(summary: Summary, *, depth: int = 1) -> Rolled:
    """The costs per module, where paths are cut to `depth` names; what runs outside any module is "(model)".

    A module that is called twice is one row; shared parameters stand where they are first read.

    >>> import torch, convscope
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten()))
    >>> summary = convscope.summarize(convscope.record(net, torch.zeros(1, 1, 5, 5)))
    >>> [(m.path, m.operators) for m in rolled(summary).modules]
    [('0', 1), ('1', 2)]
    """
    groups: dict[str, list[Operator]] = {}
    for operator in summary.operators:
        groups.setdefault(cut(operator.module, depth), []).append(operator)
    modules = tuple(summed(path or "(model)", group) for path, group in groups.items())
    return Rolled(depth, modules, _total(summary), summary.remarks)


def cut(path: str, depth: int) -> str:
    """The first `depth` names of a module's path."""
    return ".".join(path.split(".")[:depth])


def _total(summary: Summary) -> ModuleCost:
    """The sum; parameters that no operator reads are in it."""
    total = summary.total
    summed_up = summed("total", list(summary.operators))
    return replace(summed_up, params=total.params, trainable_params=total.trainable_params)


def summed(path: str, group: list[Operator]) -> ModuleCost:
    """What a group of operators costs."""
    last = group[-1] if group else None
    return ModuleCost(
        path=path,
        operators=len(group),
        output_shape=last.output_shape if last else (),
        dtype=last.dtype if last else "",
        params=sum(o.params for o in group),
        trainable_params=sum(o.trainable_params for o in group),
        macs=sum(o.macs or 0 for o in group),
        unknown=tuple(sorted({o.op for o in group if o.macs is None})),
        activation_bytes=sum(o.activation_bytes for o in group),
        bytes_moved=sum(o.bytes_moved for o in group),
        receptive_field=last.receptive_field if last else None,
    )


def _row(m: ModuleCost) -> dict[str, Any]:
    sight = m.receptive_field
    return {
        "name": m.path,
        "operators": m.operators,
        "output_shape": m.output_shape,
        "dtype": m.dtype,
        "params": m.params or None,
        "trainable": m.trainable_params if m.trainable_params != m.params else None,
        "macs": f"≥ {m.macs:,}" if m.unknown else m.macs or None,
        "activation": m.activation_bytes / MIB or None,
        "moved": m.bytes_moved / MIB or None,
        "intensity": m.intensity if m.macs else None,
        "field": seen(sight) if sight else None,
        "stride": sight["stride"] if sight else None,
    }
