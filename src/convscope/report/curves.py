"""Training curves as SVG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

TRAIN, VALIDATION = "#85b3e4", "#d9741a"


SCORES = {"accuracy": "accuracy", "map": "mAP", "miou": "mIoU", "score": "mean of the tasks' scores"}


def curves_svg(rows: Sequence[Mapping[str, Any]], *, score: str = "accuracy") -> str:
    """Loss (logarithmic) and score of each epoch, training and validation, as an SVG element.

    rows: what a run logged, one mapping an epoch. A loss that is not finite is a gap, and so is what is not logged.
    """
    figure = Figure(figsize=(9.5, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, rows, "loss")
    left.set_yscale("log")
    for formatter in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
        formatter(_Plain(minor_thresholds=(2, 0.5)))
    _draw(right, rows, score)
    right.set_ylim(top=1.005)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


class _Plain(LogFormatter):
    """0.6 rather than 6 times ten to the minus one, where a logarithmic axis has a number at all."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], what: str) -> None:
    epochs = [r["epoch"] for r in rows]
    for part, colour in (("train", TRAIN), ("val", VALIDATION)):
        values = [r.get(f"{part}_{what}") for r in rows]
        if all(v is None for v in values):
            continue
        numbers = np.array([np.nan if v is None else v for v in values], float)
        marker = "o" if len(rows) == 1 else ""
        axes.plot(epochs, numbers, color=colour, marker=marker, label="training" if part == "train" else "validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_title(SCORES.get(what, what), fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
