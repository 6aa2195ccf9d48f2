"""Kernels that are set by hand: a table of the known ones, and the notation they are written in.

A kernel is written row by row: rows end with ";", values are apart by blanks or commas, and fractions are allowed.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from convscope.errors import InputError, nearest

KERNELS: Mapping[str, str] = {
    "identity": " 0  0  0;   0  1  0;   0  0  0",
    "sobel-x": " -1  0  1;  -2  0  2;  -1  0  1",
    "sobel-y": " -1 -2 -1;   0  0  0;   1  2  1",
    "laplacian": "0  1  0;   1 -4  1;   0  1  0",
    "sharpen": "  0 -1  0;  -1  5 -1;   0 -1  0",
    "emboss": "  -2 -1  0;  -1  1  1;   0  1  2",
    "box-blur": "1/9  1/9 1/9;  1/9  1/9 1/9;  1/9  1/9 1/9",
    "gaussian": "1/16 1/8 1/16; 1/8  1/4 1/8;  1/16 1/8 1/16",
}


def named_kernel(name: str) -> Tensor:
    """The kernel of that name in `KERNELS`.

    Shapes: result HxW, float32.
    Raises: InputError with the nearest name if there is none.
    Source: Sobel & Feldman 1968 (sobel); Gonzalez & Woods, Digital Image Processing, ch. 3 (the others).

    >>> named_kernel("sobel-x")
    tensor([[-1.,  0.,  1.],
            [-2.,  0.,  2.],
            [-1.,  0.,  1.]])
    >>> named_kernel("sobel")
    Traceback (most recent call last):
    convscope.errors.InputError: kernel: none is called 'sobel'; did you mean 'sobel-y'?
    """
    if name not in KERNELS:
        raise InputError(f"kernel: none is called {name!r}; {nearest(name, KERNELS)}")
    return parse_kernel(KERNELS[name])


def parse_kernel(text: str) -> Tensor:
    """A kernel from its written-out rows.

    Shapes: result HxW, float32, as many rows and columns as are written.
    Raises: InputError that says which row and value, if rows differ in length or something is not a number.

    >>> parse_kernel("1 0 -1; 2 0 -2; 1 0 -1")
    tensor([[ 1.,  0., -1.],
            [ 2.,  0., -2.],
            [ 1.,  0., -1.]])
    >>> parse_kernel("1/4, 1/2, 1/4")
    tensor([[0.2500, 0.5000, 0.2500]])
    >>> parse_kernel("1 2; 3")
    Traceback (most recent call last):
    convscope.errors.InputError: kernel: row 2 has 1 value but row 1 has 2; write as many in every row
    """
    rows = [_row(line, row=number) for number, line in enumerate(text.split(";"), start=1)]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            values = "1 value" if len(row) == 1 else f"{len(row)} values"
            raise InputError(
                f"kernel: row {number} has {values} but row 1 has {len(rows[0])}; write as many in every row"
            )
    return torch.tensor(rows, dtype=torch.float32)


def find_kernel(text: str) -> Tensor:
    """The kernel that a person means: one of the names, or rows of numbers.

    Shapes: result HxW, float32.
    Raises: InputError as `named_kernel` for words, as `parse_kernel` for what holds a digit.

    >>> torch.equal(find_kernel("laplacian"), find_kernel("0 1 0; 1 -4 1; 0 1 0"))
    True
    """
    written_out = any(c.isdigit() or c == ";" for c in text) or not text.strip()
    return parse_kernel(text) if written_out else named_kernel(text.strip())


def _row(line: str, *, row: int) -> list[float]:
    if not line.strip():
        raise InputError(f"kernel: row {row} is empty; write its values, or take away the ';'")
    cells = re.split(r"\s*,\s*|\s+", line.strip())
    return [_value(cell, f"kernel: row {row}, value {number}") for number, cell in enumerate(cells, start=1)]


def _value(cell: str, place: str) -> float:
    top, slash, bottom = cell.replace("\N{MINUS SIGN}", "-").partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{place}: {cell!r} is not a number; write numbers like 1, -0.5 or 1/9") from None
    if not abs(value) <= torch.finfo(torch.float32).max:
        raise InputError(f"{place}: {cell!r} is not a finite float32; write numbers like 1, -0.5 or 1/9")
    return value
