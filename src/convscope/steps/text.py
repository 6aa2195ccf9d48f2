"""Matrices of whole or broken numbers as text: four significant digits, `.` for what is no value."""

from collections.abc import Sequence

import numpy as np

from convscope.table import MINUS, number

ROWS, COLUMNS = 32, 30  # that are shown; of more, the first and the last


def block(name: str, values: np.ndarray, real: np.ndarray | None = None) -> list[str]:
    """The lines of a matrix under its name, if it has one; where `real` is False stands a dot.

    >>> print(*block("x", np.array([[1, -2.5], [0, 10]]), np.array([[1, 1], [0, 1]])), sep="\\n")
    x
    1  −2.5
    .    10
    """
    values = np.atleast_2d(values)
    values = np.where(np.abs(values) < 1e-13 * np.abs(values).max(initial=0), 0, values)
    real = np.ones(values.shape, dtype=bool) if real is None else np.atleast_2d(real)
    rows, columns = _shown(len(values), ROWS), _shown(values.shape[1], COLUMNS)
    cells = [
        ["⋯" if None in (r, c) else figure(complex(values[r, c])) if real[r, c] else "." for c in columns] for r in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    wide = max(len(name), len(lines[0]))
    return [line.ljust(wide) for line in [*([name] if name else []), *lines]]


def beside(*parts: Sequence[str]) -> list[str]:
    """Blocks side by side, each with its own number of lines.

    >>> beside(["a", "1"], ["b", "2", "3"])
    ['a   b', '1   2', '    3']
    """
    height = max(len(p) for p in parts)
    filled = [[*p, *[" " * len(p[0])] * (height - len(p))] for p in parts]
    return ["   ".join(row).rstrip() for row in zip(*filled, strict=True)]


def figure(value: complex) -> str:
    """A number as a person reads it; rounding's last crumbs are zero.

    >>> figure(-2.0), figure(1 - 2j), figure(1e-17)
    ('−2', '1−2i', '0')
    """
    real, imaginary = (0.0 if abs(v) < 1e-12 else float(v) for v in (value.real, value.imag))
    if not imaginary:
        return number(real)
    sign, size = (MINUS if imaginary < 0 else "+"), number(abs(imaginary))
    return (number(real) if real else "") + (sign if real or imaginary < 0 else "") + size + "i"


def added(values: Sequence[float]) -> str:
    """Numbers as a sum.

    >>> added([2, -3, 0])
    '2 − 3 + 0'
    """
    first, *others = values
    parts = [figure(first)] + [f"{MINUS if v < 0 else '+'} {figure(abs(v))}" for v in others]
    return " ".join(parts)


def _shown(count: int, most: int) -> list[int | None]:
    if count <= most:
        return list(range(count))
    half = most // 2
    return [*range(half), None, *range(count - half, count)]
