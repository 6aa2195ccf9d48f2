"""The profile as pictures: the roofline with every operator on it, and where the time goes, module in module."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convscope.files import new_figure
from convscope.profile.measure import Profile, TimedOp

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LINE = "#1f2933", "#6b7785", "#d5dae1"
BOUND = {"arithmetic": "#2f6fbf", "memory": "#d9741a", "call": "#9aa5b1"}
NAMED = 6  # operators whose names stand in the roofline
DEPTHS = ("#dbe7f5", "#b9d1ec", "#94b8e0", "#6f9dd2", "#4f83c0")


def roofline(profile: Profile) -> "Figure":
    """Each operator that has MACs at its MACs a byte and MACs a second, below the machine's ceilings; area is time."""
    figure = new_figure(9, 5.2)
    axes = figure.subplots()
    shown = [t for t in profile.ops if t.macs and t.bytes]
    intensity = np.array([(t.macs or 0) / t.bytes for t in shown])
    speed = np.array([(t.macs or 0) / t.inside.median for t in shown])
    _ceilings(axes, profile, intensity)
    for bound, colour in BOUND.items():
        at = [i for i, t in enumerate(shown) if t.bound == bound]
        area = [20 + 900 * shown[i].inside.median / profile.whole.median for i in at]
        axes.scatter(intensity[at], speed[at], s=area, color=colour, alpha=0.55, lw=0.6, ec="white")
        axes.scatter([], [], s=40, color=colour, alpha=0.55, lw=0, label=bound)
    axes.set(xscale="log", yscale="log", xlabel="MACs a byte", ylabel="MACs a second")
    rest = 1 - sum(t.inside.median for t in shown) / (profile.inside or 1)
    title = f"roofline: every operator with MACs, its area the share of the time ({rest:.0%} is spent on those without)"
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.legend(title="least time set by", frameon=False, loc="lower right", fontsize=9, title_fontsize=9)
    _plain(axes)
    _names(axes, shown, np.log10(intensity), np.log10(speed))
    return figure


def _names(axes: "Axes", shown: Sequence[TimedOp], x: np.ndarray, y: np.ndarray) -> None:
    """The operators that take longest by name; of names that would touch, the first."""
    taken: list[int] = []
    for i in sorted(range(len(shown)), key=lambda i: -shown[i].inside.median):
        if all(abs(x[i] - x[j]) > 0.6 or abs(y[i] - y[j]) > 0.06 for j in taken) and len(taken) < NAMED:
            taken.append(i)
            at, name = (10.0 ** x[i], 10.0 ** y[i]), shown[i].op.module or shown[i].op.name
            axes.annotate(name, at, (-9, 0), textcoords="offset points", fontsize=8, color=INK, ha="right", va="center")


def _ceilings(axes: "Axes", profile: Profile, intensity: np.ndarray) -> None:
    x = np.geomspace(intensity.min(initial=1) / 2, intensity.max(initial=50) * 2, 200)
    peak = profile.limits.macs["float32"]
    inside, outside = profile.limits.bytes[0], profile.limits.bytes[-1]
    for name, (_, bandwidth) in (("cache", inside), ("memory", outside)):
        axes.plot(x, np.minimum(peak, bandwidth * x), color=FAINT, lw=1, zorder=0)
        at, words = (x[8], bandwidth * x[8]), f"{name}, {bandwidth / 1e9:,.0f} GB/s"
        axes.annotate(words, at, (8, -8), textcoords="offset points", fontsize=8, color=FAINT)
    at, words = (x[-1], peak), f"float32, {peak / 1e9:,.0f} GMAC/s"
    axes.annotate(words, at, (0, 4), textcoords="offset points", fontsize=8, color=FAINT, ha="right")


@dataclass(frozen=True, slots=True)
class Span:
    """A module (or, at the leaves, an operator) as an interval of time. Units: seconds."""

    name: str
    depth: int
    start: float
    seconds: float


def spans(ops: Sequence[TimedOp]) -> tuple[Span, ...]:
    """Modules and operators laid end to end in the order of running, a module above what ran in it."""
    return tuple(_spans([(*_path(t), t.op.name) for t in ops], [t.inside.median for t in ops], 0, 0.0))


def _spans(paths: list[tuple[str, ...]], seconds: list[float], depth: int, start: float) -> Iterator[Span]:
    i = 0
    while i < len(paths):
        j = i + 1
        while j < len(paths) and len(paths[i]) > 1 and paths[j][0] == paths[i][0] and len(paths[j]) > 1:
            j += 1
        total = sum(seconds[i:j])
        yield Span(paths[i][0], depth, start, total)
        if len(paths[i]) > 1:
            yield from _spans([p[1:] for p in paths[i:j]], seconds[i:j], depth + 1, start)
        start, i = start + total, j


def _path(timed: TimedOp) -> tuple[str, ...]:
    return tuple(timed.op.module.split(".")) if timed.op.module else ()


def flame(profile: Profile) -> "Figure":
    """Time from left to right, modules above the operators that ran in them."""
    found = spans(profile.ops)
    deepest = max((s.depth for s in found), default=0)
    figure = new_figure(12, 1.1 + 0.42 * (deepest + 1))
    axes = figure.subplots()
    total = profile.inside
    for span in found:
        colour = DEPTHS[min(span.depth, len(DEPTHS) - 1)]
        axes.barh(-span.depth, span.seconds * 1e3, left=span.start * 1e3, height=0.92, color=colour, ec="white", lw=0.7)
        if span.seconds * 95 > total * max(2.2, 0.75 * len(span.name)):
            middle = (span.start + span.seconds / 2) * 1e3
            axes.text(middle, -span.depth, span.name, ha="center", va="center", fontsize=8, color=INK, clip_on=True)
    axes.set(xlim=(0, total * 1e3), ylim=(-deepest - 0.5, 0.5), yticks=(), xlabel="ms inside the network")
    axes.set_title("where the time goes", loc="left", fontsize=11, color=INK)
    _plain(axes, grid=False)
    return figure


def _plain(axes: "Axes", *, grid: bool = True) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=FAINT, labelsize=9)
    if grid:
        axes.grid(color=LINE, lw=0.6)
        axes.set_axisbelow(True)
