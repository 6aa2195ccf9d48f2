"""The candidates as a picture: time against what it costs in accuracy, or in difference where no score is known."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from convscope.optimize.result import Optimised, Row

INK, FAINT, LINE = "#1f2933", "#6b7785", "#d5dae1"
COLOURS = {"": INK, "lossless": "#2f6fbf", "numeric": "#d9741a", "structural": "#2e8b57"}
FIGURE_SPACE = "\u2007"  # as wide as a digit
LEAST = 1e-8  # a difference of nothing, on a logarithmic axis


def pareto(found: Optimised) -> Figure:
    """A numbered point a candidate; the line joins those that no other beats in both."""
    shown = sorted((r for r in found.rows if r.seconds is not None), key=lambda r: r.seconds or 0)
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    axes = figure.subplots()
    heights = [_height(found, r) for r in shown]
    for row, height in zip(shown, heights, strict=True):
        colour, kept = COLOURS[row.stage], row == found.kept
        low, high = row.interval or (0, 0)
        if row.interval:
            axes.plot([1e3 * (row.seconds or 0)] * 2, [100 * low, 100 * high], color=colour, lw=1, alpha=0.35)
        axes.scatter(1e3 * (row.seconds or 0), height, s=110 if kept else 45, color=colour, ec="white", zorder=3)
    for stage in dict.fromkeys(row.stage for row in shown):
        axes.scatter([], [], s=45, color=COLOURS[stage], label=stage or "the network as it is")
    axes.legend(loc="lower left", bbox_to_anchor=(1.0, 0), frameon=False, fontsize=9, labelcolor=INK)
    front = _front(found, shown, heights)
    axes.plot([1e3 * (r.seconds or 0) for r, _ in front], [h for _, h in front], color=FAINT, lw=0.8, zorder=1)
    _number(axes, found, shown, heights)
    axes.set(xlabel=f"ms for a batch of {found.batch_size}", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    if found.score:
        axes.set_ylabel(f"{found.score}, % (95 % interval)", color=INK)
    else:
        axes.set(yscale="log", ylabel="largest difference, as a share of the largest output")
    axes.set_title(f"{found.model}: time and what it costs", loc="left", fontsize=11, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.grid(color=LINE, lw=0.6)
    axes.set_axisbelow(True)
    return figure


def _height(found: Optimised, row: Row) -> float:
    return 100 * (row.score or 0) if found.score else max(row.difference or 0, LEAST)


def _front(found: Optimised, rows: Sequence[Row], heights: Sequence[float]) -> list[tuple[Row, float]]:
    """Those that are better than all that are faster; rows come fastest first."""
    front: list[tuple[Row, float]] = []
    for row, height in zip(rows, heights, strict=True):
        best = front[-1][1] if front else None
        if best is None or (height > best if found.score else height < best):
            front.append((row, height))
    return front


def _number(axes: Axes, found: Optimised, rows: Sequence[Row], heights: Sequence[float]) -> None:
    """A number above or below each point by turns, and what the numbers mean beside the picture."""
    key = []
    for i, (row, height) in enumerate(zip(rows, heights, strict=True)):
        ms = 1e3 * (row.seconds or 0)
        offset = (0, 9 if i % 2 == 0 else -16)
        axes.annotate(str(i + 1), (ms, height), offset, textcoords="offset points", ha="center", fontsize=8, color=INK)
        key.append(f"{i + 1:{FIGURE_SPACE}>2}  {ms:.3g} ms  {row.candidate}" + (" (kept)" if row == found.kept else ""))
    axes.text(1.02, 1, "\n".join(key), transform=axes.transAxes, va="top", fontsize=9, linespacing=1.6, color=INK)
