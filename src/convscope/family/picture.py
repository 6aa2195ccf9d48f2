"""The family as a picture: what each member saves on paper, and on the clock if it was timed."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convscope.family.counting import Family, Member

PROMISED, DELIVERED, AT_BEST = "#85b3e4", "#d9741a", "#2f7d4f"
_BARS: tuple[tuple[str, str, Callable[[Family, Member], float | None]], ...] = (
    ("fewer MACs", PROMISED, Family.promised),
    ("faster, as PyTorch runs it", DELIVERED, Family.delivered),
    ("faster, at its fastest", AT_BEST, Family.delivered_at_best),
)
_INK, _FAINT, _LINE = "#1f2933", "#6b7785", "#d5dae1"


def draw(told: Family) -> Figure:
    """A bar for each member, on a scale of doublings: how many times fewer MACs than the dense convolution it has; and
    below that, if the family was timed, how many times faster it is, as PyTorch runs it and at its fastest.
    """
    members = [m for m in told.members if m.macs or m.times]
    timed = told.members[0].times is not None
    figure = Figure(figsize=(10, 1.3 + (0.6 if timed else 0.45) * len(members)), layout="constrained")
    axes = figure.subplots()
    bars = _BARS if timed else _BARS[:1]
    height = 0.78 / len(bars) if timed else 0.6
    for i, (label, colour, value) in enumerate(bars):
        places = np.arange(len(members)) + height * (i - (len(bars) - 1) / 2)
        _bars(axes, places, [value(told, m) for m in members], height=height, colour=colour, label=label)
    axes.set_yticks(range(len(members)), [m.name for m in members])
    axes.invert_yaxis()
    _style(axes, told)
    return figure


def _bars(
    axes: Axes, places: np.ndarray, values: Sequence[float | None], *, height: float, colour: str, label: str
) -> None:
    """Bars from 1 on: to the right a saving, to the left a loss."""
    known = [(place, v) for place, v in zip(places, values, strict=True) if v]
    axes.barh([p for p, _ in known], [v - 1 for _, v in known], height, left=1, color=colour, label=label)
    for place, v in known:
        beside = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{v:.3g}", (max(v, 1), place), **beside, fontsize=8.5, color=_INK)


def _style(axes: Axes, told: Family) -> None:
    axes.set_xscale("log", base=2)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.9), high * 1.3)
    axes.margins(y=0.02)
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}x")
    axes.axvline(1, color=_FAINT, linewidth=1)
    axes.grid(axis="x", color=_LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=_INK)
    axes.spines[:].set_visible(False)
    axes.set_title(
        "What each saves against the dense convolution as PyTorch runs it", loc="left", fontsize=12, color=_INK
    )
    axes.legend(loc="lower right", frameon=False, labelcolor=_INK)
    axes.set_xlabel("\n".join([told.table().title, *told.notes]), fontsize=8.5, color=_FAINT, loc="left")
