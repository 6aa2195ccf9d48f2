"""Boxes and masks turned as EXIF orientation turns their picture.

Source: EXIF 2.3, tag 0x0112.
"""

import re

import numpy as np

from convscope.data.entries import Box
from convscope.data.images import Picture


def orientation(picture: Picture) -> int:
    """By which EXIF orientation (1 to 8) a picture was turned when it was read; 1 is not at all."""
    told = (re.search(r"EXIF orientation (\d)", note) for note in picture.notes)
    return next((int(t.group(1)) for t in told if t), 1)


def turned_box(box: Box, how: int, *, width: int, height: int) -> Box:
    """A box of a stored picture of that size, where it lies in the upright one.

    >>> turned_box((0, 0, 2, 1), 6, width=4, height=3)
    (2, 0, 3, 2)
    """
    corners = []
    for x, y in (box[:2], box[2:]):
        x, y = (width - x if how in (2, 3, 7, 8) else x), (height - y if how in (3, 4, 6, 7) else y)
        corners.append((y, x) if how >= 5 else (x, y))
    (x1, y1), (x2, y2) = corners
    flipped_x = how in (2, 3) or how in (6, 7)
    flipped_y = how in (3, 4) or how in (7, 8)
    return (x2 if flipped_x else x1), (y2 if flipped_y else y1), (x1 if flipped_x else x2), (y1 if flipped_y else y2)


def turned_array(values_HW: np.ndarray, how: int) -> np.ndarray:
    """Rows and columns of a stored picture, as they are in the upright one.

    >>> turned_array(np.array([[1, 2]]), 6).tolist()
    [[1], [2]]
    """
    if how >= 5:
        values_HW = values_HW.swapaxes(0, 1)
    if how in (2, 3, 6, 7):
        values_HW = values_HW[:, ::-1]
    if how in (3, 4, 7, 8):
        values_HW = values_HW[::-1]
    return np.ascontiguousarray(values_HW)
