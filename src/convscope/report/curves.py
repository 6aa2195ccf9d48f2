"""Training curves as SVG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TRAIN, VALIDATION = "#85b3e4", "#d9741a"


SCORES = {"accuracy": "accuracy", "map": "mAP", "miou": "mIoU", "score": "mean of mAP and mIoU"}


def curves_svg(rows: Sequence[Mapping[str, Any]], *, score: str = "accuracy") -> str:
    """Loss (logarithmic) and score of each epoch, training and validation, as an SVG element.

    rows: what a run logged, one mapping an epoch. A loss that is not finite is a gap, and so is what is not logged.
    """
    figure = Figure(figsize=(9.5, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, rows, "loss")
    left.set_yscale("log")
    _draw(right, rows, score)
    right.set_ylim(top=1.005)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], what: str) -> None:
    epochs = [r["epoch"] for r in rows]
    for part, colour in (("train", TRAIN), ("val", VALIDATION)):
        values = [r.get(f"{part}_{what}") for r in rows]
        if all(v is None for v in values):
            continue
        numbers = np.array([np.nan if v is None else v for v in values], float)
        axes.plot(epochs, numbers, color=colour, label="training" if part == "train" else "validation")
    axes.set_xlabel("epoch")
    axes.set_title(SCORES.get(what, what), fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
