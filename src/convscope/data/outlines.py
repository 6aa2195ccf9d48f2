"""Polygons and run lengths as masks, by COCO's conventions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_VERTICES = 100_000


def polygon_mask(polygons: Sequence[Sequence[float]], *, height: int, width: int) -> np.ndarray:
    """Pixels inside any of the polygons (x1 y1 x2 y2 ... in pixels), bool [height, width].

    Source: COCO's mask API, as faster-coco-eval has it.
    Raises: ValueError if a polygon has fewer than three corners, or leaves the picture by more than its size.

    >>> polygon_mask([[0, 0, 2, 0, 2, 2, 0, 2]], height=3, width=3).sum()
    np.int64(4)
    """
    from faster_coco_eval.core import mask

    reach = max(height, width)
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or len(polygon) > 2 * MAX_VERTICES:
            raise ValueError(f"an outline has {len(polygon)} numbers, not x and y of three corners or more")
        if not all(-reach <= v <= 2 * reach for v in polygon):
            raise ValueError("an outline lies outside the picture, or holds NaN")
    if not polygons:
        return np.zeros((height, width), bool)
    drawn: Any = mask.frPyObjects([list(map(float, p)) for p in polygons], height, width)
    return mask.decode(mask.merge(drawn)) > 0


def run_length_mask(rle: Any, *, height: int, width: int) -> np.ndarray:
    """A mask from COCO's run lengths, plain or compressed, bool [height, width]; columns first, zeros first.

    Reading is ours, so that a damaged string cannot reach beyond its buffer.
    Source: COCO's maskApi.c (rleFrString).
    Raises: ValueError if the runs are no whole numbers or do not fill the picture.

    >>> run_length_mask({"size": [2, 2], "counts": [1, 2, 1]}, height=2, width=2).tolist()
    [[False, True], [True, False]]
    """
    size, counts = (rle.get("size"), rle.get("counts")) if isinstance(rle, dict) else (None, None)
    if size != [height, width]:
        raise ValueError(f"run lengths are of {size!r}, but the picture is [{height}, {width}]")
    runs = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(r, int) and 0 <= r <= height * width for r in runs):
        raise ValueError("run lengths are no list of whole numbers")
    if sum(runs) != height * width:
        raise ValueError(f"run lengths come to {sum(runs)} pixels of {height * width}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """Five bits a character, the lowest first, bit 5 for more; from the third run on, differences to two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("run lengths hold a character that is none of theirs")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (1 << shift) * bool(bits & 16)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths are cut short")
    return runs
