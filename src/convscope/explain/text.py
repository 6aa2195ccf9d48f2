"""Matrices as text: one exponent for all, fixed decimals, `.` for what lies in padding."""

from collections.abc import Sequence

import numpy as np


def side_by_side(parts: Sequence[tuple[str, np.ndarray]], inside: np.ndarray) -> list[str]:
    """The lines of several matrices of one shape, each under its name.

    >>> side_by_side([("a", np.eye(2)), ("b", np.ones((2, 2)))], np.ones((2, 2), bool))[1]
    '1.000 0.000   1.000 1.000'
    """
    blocks = [_block(name, _matrix(values), _matrix(inside)) for name, values in parts]
    return ["   ".join(row).rstrip() for row in zip(*blocks, strict=True)]


def number_fixed(value: float) -> str:
    """Three decimals, with a true minus sign and no negative zero.

    >>> number_fixed(-0.0001), number_fixed(-1.5)
    ('0.000', '−1.500')
    """
    text = f"{value:.3f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text.replace("-", "\N{MINUS SIGN}")


def _matrix(values: np.ndarray) -> np.ndarray:
    """As rows and columns: one row for a vector, leading kernel axes stacked."""
    return np.atleast_2d(values).reshape(-1, np.atleast_1d(values).shape[-1])


def _block(name: str, values: np.ndarray, inside: np.ndarray) -> list[str]:
    """Lines of one matrix under its name: one exponent, fixed decimals, long rows cut in the middle."""
    if values.shape[1] > 9:
        shown = np.r_[0:4, values.shape[1] - 4 : values.shape[1]]
        values, inside = values[:, shown], inside[:, shown]
        name += " (first and last 4)"
    top = float(np.abs(values).max(initial=0.0))
    exponent = int(np.floor(np.log10(top))) if 0 < top < np.inf else 0
    exponent = 0 if -1 <= exponent <= 2 else exponent
    scaled = values / 10.0**exponent
    cells = [
        [number_fixed(v) if i else "." for v, i in zip(*row, strict=True)] for row in zip(scaled, inside, strict=True)
    ]
    width = max(len(c) for row in cells for c in row)
    lines = [" ".join(c.rjust(width) for c in row) for row in cells]
    title = name if exponent == 0 else f"{name}, x10^{exponent}"
    wide = max(len(title), *map(len, lines))
    return [title.ljust(wide), *(line.ljust(wide) for line in lines)]
