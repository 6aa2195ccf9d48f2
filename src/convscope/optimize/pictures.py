"""The candidates as a picture: time against what it costs in accuracy, or in difference where no score is known."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convscope.optimize.result import Optimised, Row

INK, FAINT, LINE = "#1f2933", "#6b7785", "#d5dae1"
COLOURS = {"": INK, "lossless": "#2f6fbf", "numeric": "#d9741a"}
LEAST = 1e-8  # a difference of nothing, on a logarithmic axis


def pareto(found: Optimised) -> Figure:
    """A point a candidate, named; the line joins those that no other beats in both."""
    shown = sorted((r for r in found.rows if r.seconds is not None), key=lambda r: r.seconds or 0)
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.subplots()
    heights = [_height(found, r) for r in shown]
    for row, height in zip(shown, heights, strict=True):
        colour, kept = COLOURS[row.stage], row == found.kept
        low, high = row.interval or (0, 0)
        if row.interval:
            axes.plot([1e3 * (row.seconds or 0)] * 2, [100 * low, 100 * high], color=colour, lw=1, alpha=0.35)
        axes.scatter(1e3 * (row.seconds or 0), height, s=110 if kept else 45, color=colour, ec="white", zorder=3)
    front = _front(found, shown, heights)
    axes.plot([1e3 * (r.seconds or 0) for r, _ in front], [h for _, h in front], color=FAINT, lw=0.8, zorder=1)
    _name(axes, found, shown, heights)
    axes.set(xlabel=f"ms for a batch of {found.batch_size}", xlim=(0, None))
    if found.score:
        axes.set_ylabel(f"{found.score}, % (95 % interval)")
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


def _name(axes: Axes, found: Optimised, rows: Sequence[Row], heights: Sequence[float]) -> None:
    """Names beside their points, each a line below the last where points lie close."""
    most = max((1e3 * (r.seconds or 0) for r in rows), default=1)
    taken: list[tuple[float, float]] = []
    span = max(heights, default=1) - min(heights, default=0) or 1
    for row, height in zip(rows, heights, strict=True):
        x = 1e3 * (row.seconds or 0)
        near = sum(abs(x - a) < 0.25 * most and (not found.score or abs(height - b) < 0.05 * span) for a, b in taken)
        taken.append((x, height))
        words = f"{row.candidate} (kept)" if row == found.kept else row.candidate
        axes.annotate(words, (x, height), (7, 6 - 11 * near), textcoords="offset points", fontsize=8, color=INK)
