"""A page of boxes and words, as data: where each is, and in which frames.

Places and sizes are px of the page, from its top left corner.
"""

from dataclasses import dataclass

import numpy as np

from convscope.fonts import font
from convscope.steps.text import figure

LEVELS = 16  # steps of colour from 0 to the largest value


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle. `level` is its colour: -16 to 16 on the diverging scale, None if it is not filled.

    `edge` says how it is drawn: with a thin "line", "dashed", with a "strong" line, that of a "tap", or as a part of
    the bar that shows how far the animation is, "bar" or "track". It is there in the frames `life`, first to last.
    A box that moves has `path`: its top left corner in every frame.
    """

    at: tuple[float, float]
    size: tuple[float, float]
    level: int | None = None
    edge: str = "line"
    life: tuple[int, int] = (0, 0)
    path: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """A line of text: its baseline's place, size in px, and which end or middle (`anchor`) stands there.

    `tone` is "ink", "faint" or "strong", or the level of the box below, whose colour decides black or white.
    """

    at: tuple[float, float]
    text: str
    size: float
    tone: str | int = "ink"
    anchor: str = "middle"
    life: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A page of `size` px, what is on it in the order of painting, and how many frames it has."""

    size: tuple[int, int]
    count: int
    title: str
    items: tuple[Box | Words, ...]

    def seconds(self) -> tuple[float, float]:
        """How long a frame stands, and the last one.

        >>> Scene((1, 1), 9, "", ()).seconds()
        (1.2, 3.2)
        """
        each = min(1.2, max(0.25, round(36 / self.count, 2)))
        return each, each + 2


def text_width(text: str, size: float) -> float:
    """Width of a text in px, in the typeface that pictures are drawn with.

    >>> text_width("00", 10) == 2 * text_width("0", 10)
    True
    """
    return font(100).getlength(text) * size / 100


def font_size(values: np.ndarray, cell: int) -> float:
    """Px at which the longest number fits into its cell.

    >>> font_size(np.array([1.0]), 46) > font_size(np.array([1234567.0]), 46)
    True
    """
    return round(min(0.36 * cell, 11 * (cell - 7) / (widest(values, 11) or 1)), 1)


def widest(values: np.ndarray, size: float) -> float:
    """Width in px of the longest number among finite values, at a size.

    >>> widest(np.array([0.0, np.nan]), 10) == text_width("0", 10)
    True
    """
    found = np.unique(values[np.isfinite(values)])
    return max((text_width(figure(float(v)), size) for v in found), default=0.0)
