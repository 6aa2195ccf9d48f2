"""The fastest way to run a layer on this machine: every exact way is tried, and the clock decides.

What is chosen is kept in the user's cache folder by machine, layer and shape, so that it is measured once.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convscope.clock import Timing, cache, compare, limits, measure
from convscope.layers.fast import compiled, forms
from convscope.layers.fast.operators import forget_packed
from convscope.layers.fast.ways import Way, stack, ways
from convscope.table import Column, Table

# How far a form may lie from the plain layer: the largest difference beside the largest output.
TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 5e-5, torch.bfloat16: 2e-2}
DEFAULT, LAST = "PyTorch", "PyTorch, channels last"
_PARTS, _HALF = "each part in its own way", "PyTorch, bfloat16, channels last"
_GAIN = 0.97  # what is chosen in PyTorch's place takes at most so much of its time: less is noise
_LONG = 1e-3  # seconds of one way at a time: what the others left in the caches counts for little
_HOPELESS = 2.0  # times the best of a first look


@dataclass(frozen=True, slots=True)
class Choice:
    """The fastest way that was found: its words, its module, and every way that was tried, as rows.

    `module` gives what the layer gives, on inputs of any layout and quickest on `memory_format`; its tensors are its
    own. A row holds way, seconds (median), low, high, over_default and over_best (times as fast as PyTorch's default
    layout and as its best one) and error. `notes` say which ways were left out, and why.
    """

    way: str
    module: nn.Module
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    memory_format: torch.memory_format

    @property
    def seconds(self) -> float:
        """The time of the chosen way, when it was chosen."""
        return self._chosen["seconds"]

    @property
    def over_default(self) -> float:
        """How many times as fast it was as PyTorch in its default layout."""
        return self._chosen["over_default"]

    @property
    def over_best(self) -> float:
        """How many times as fast it was as PyTorch in its best layout."""
        return self._chosen["over_best"]

    @property
    def _chosen(self) -> dict[str, Any]:
        return next(row for row in self.rows if row["way"] == self.way)

    def table(self) -> Table:
        """Every way that was tried, the quickest first."""
        columns = (
            Column("way", "way"),
            Column("ms", "time", "ms"),
            Column("over_default", "times as fast as PyTorch"),
            Column("over_best", "as its best layout"),
            Column("error", "error"),
        )
        rows = sorted(self.rows, key=lambda row: row["seconds"])
        shown = tuple(row | {"ms": 1e3 * row["seconds"]} for row in rows)
        return Table(columns, shown, title=f"chosen: {self.way}", notes=self.notes)

    def data(self) -> dict[str, Any]:
        """Everything but the module, as plain data."""
        return {"way": self.way, "rows": list(self.rows), "notes": list(self.notes)}


def fastest(
    layer: nn.Module,
    example: Tensor,
    *,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    training: bool = False,
    anew: bool = False,
) -> Choice:
    """The fastest exact way to run the layer on inputs like the example, on this machine, by measurement.

    Shapes: example NxCxHxW; each way gets it in the layout that suits it, as inside a network that keeps that layout.
    `dtypes` with bfloat16 in it allows for that, in bfloat16's tolerance. `training` measures forward and backward, on
    weights that change from step to step, and tries differentiable ways alone. `anew` measures again what was kept.
    PyTorch's own ways are among those tried: no way that is slower, by this measurement, is chosen.

    >>> choice = fastest(nn.Conv2d(4, 4, 3, groups=4), torch.zeros(1, 4, 8, 8))
    >>> choice.module(torch.zeros(1, 4, 8, 8)).shape
    torch.Size([1, 4, 6, 6])
    >>> choice.over_best >= 1
    True
    """
    known = _known(layer, example, dtypes, training, anew)
    key = _key(layer, example, dtypes, training) | {"ways": list(known)}
    kept = None if anew else _restored(cache.load("fastest", key), known)
    if kept is None:
        kept = _measured(layer, example, known, training)
        cache.save("fastest", key, {"way": kept[0], "rows": kept[1], "notes": kept[2]})
    way, rows, notes = kept
    layout = torch.contiguous_format if way == DEFAULT else torch.channels_last
    return Choice(way, known[way].make(), tuple(rows), tuple(notes), layout)


Kept = tuple[str, list[dict[str, Any]], list[str]]  # the way that was chosen, rows, notes


def _known(
    layer: nn.Module, example: Tensor, dtypes: Sequence[torch.dtype], training: bool, anew: bool
) -> dict[str, Way]:
    """All ways by their words, PyTorch's default first."""
    found = [Way(DEFAULT, lambda: copy.deepcopy(layer))]
    if example.dim() == 4:
        found.append(Way(LAST, lambda: forms.ChannelsLast(copy.deepcopy(layer))))
        if torch.bfloat16 in dtypes:
            found.append(Way(_HALF, lambda: forms.Bfloat16(copy.deepcopy(layer))))
        if example.dtype == torch.float32 and example.device.type == "cpu":
            found += ways(layer, example, training=training)
            parts = stack(layer)
            if parts:
                options: dict[str, Any] = {"dtypes": dtypes, "training": training, "anew": anew}
                found.append(Way(_PARTS, lambda: _in_parts(parts, example, options)))
    return {way.words: way for way in found}


def _in_parts(parts: Sequence[nn.Module], example: Tensor, options: Mapping[str, Any]) -> nn.Module:
    chosen, x = nn.Sequential(), example
    for part in parts:
        chosen.append(fastest(part, x, **options).module)
        with torch.no_grad():
            x = part(x)
    return chosen


def _measured(layer: nn.Module, example: Tensor, known: Mapping[str, Way], training: bool) -> Kept:
    runs: dict[str, Callable[[], object]] = {}
    looks: dict[str, float] = {}
    errors: dict[str, float] = {}
    notes = [f"no own kernels: {compiled.why_absent()}"] if compiled.why_absent() else []
    with torch.no_grad():
        wanted = layer(example)
    for words, way in known.items():
        if way.macs and limits().least_seconds(macs=way.macs, bytes=0) > min(looks.values()):
            notes.append(f"{words}: left out, its arithmetic alone takes longer")
            continue
        module = way.make()
        x = example.detach().contiguous(
            memory_format=torch.contiguous_format if words == DEFAULT else torch.channels_last
        )
        error = _error(module, x, wanted)
        if not error <= TOLERANCE[torch.bfloat16 if words == _HALF else torch.float32]:
            notes.append(f"{words}: left out, its error is {error:.2g}")
            continue
        runs[words], errors[words] = _run(module, x, wanted, training), error
        looks[words] = measure(runs[words], repeats=3).least
    times = compare(_promising(runs, looks), rounds=15, at_least=_LONG, at_most=2.0)
    return _pick(times), _rows(times, errors), notes


def _promising(runs: Mapping[str, Callable[[], object]], looks: Mapping[str, float]) -> dict[str, Callable[[], object]]:
    """PyTorch's own, and what is not far behind the best at a first look."""
    most = _HOPELESS * min(looks.values())
    return {words: run for words, run in runs.items() if words in (DEFAULT, LAST) or looks[words] <= most}


def _pick(times: Mapping[str, Timing]) -> str:
    """The shortest median; one of PyTorch's own where that takes hardly longer."""
    medians = {words: t.median for words, t in times.items()}
    stock = min((w for w in (DEFAULT, LAST) if w in medians), key=medians.__getitem__)
    best = min(medians, key=medians.__getitem__)
    return best if medians[best] < _GAIN * medians[stock] else stock


def _rows(times: Mapping[str, Timing], errors: Mapping[str, float]) -> list[dict[str, Any]]:
    default = times[DEFAULT].median
    best = min(times[w].median for w in (DEFAULT, LAST) if w in times)
    return [
        {
            "way": words,
            "seconds": t.median,
            "low": t.low,
            "high": t.high,
            "over_default": default / t.median,
            "over_best": best / t.median,
            "error": errors[words],
        }
        for words, t in times.items()
    ]


def _run(module: nn.Module, x: Tensor, like: Tensor, training: bool) -> Callable[[], object]:
    if not training:
        return torch.inference_mode()(lambda: module(x))
    grad = torch.ones_like(like).contiguous(memory_format=_layout_of(x))
    x = x.requires_grad_()
    wanted = [x, *(p for p in module.parameters() if p.requires_grad)]

    def step() -> object:
        forget_packed()
        return torch.autograd.grad(module(x), wanted, grad)

    return torch.enable_grad()(step)


def _layout_of(x: Tensor) -> torch.memory_format:
    return torch.contiguous_format if x.dim() != 4 or x.is_contiguous() else torch.channels_last


@torch.no_grad()
def _error(module: nn.Module, x: Tensor, wanted: Tensor) -> float:
    """The largest difference beside the largest output."""
    return float((module(x) - wanted).abs().max() / wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny))


def _key(layer: nn.Module, example: Tensor, dtypes: Sequence[torch.dtype], training: bool) -> dict[str, Any]:
    return {
        **cache.here(),
        "layer": repr(layer),
        "shape": list(example.shape),
        "dtype": str(example.dtype),
        "dtypes": sorted(map(str, dtypes)),
        "training": training,
        "kernels": compiled.digest(),
    }


def _restored(data: Any, known: Mapping[str, Way]) -> Kept | None:
    """What was kept, if it is whole and its way is still there."""
    try:
        way, rows, notes = data["way"], list(data["rows"]), [str(n) for n in data["notes"]]
        numbers = [float(row[name]) for row in rows for name in ("seconds", "over_default", "over_best", "error")]
        named = {row["way"] for row in rows}
    except (KeyError, TypeError, ValueError):
        return None
    return (way, rows, notes) if way in known and way in named and numbers else None
