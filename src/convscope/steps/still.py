"""One value of a network as a file: its terms drawn, as a page, or as exact numbers.

Shapes: C input channels, K... kernel axes.
"""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from convscope.explain import Explanation
from convscope.explain.pictures import png_bytes
from convscope.explain.terms import place
from convscope.files import known_ending, write_whole
from convscope.steps.page import LEVELS, Box, Scene, Words, font_size, text_width, widest
from convscope.steps.raster import draw
from convscope.steps.svg import write_svg
from convscope.steps.text import added, figure
from convscope.table import number

FILES = (".png", ".svg", ".html", ".npz")
CHANNELS, TERMS, WIDE = 4, 12, 11  # that are drawn: input channels, named terms, elements along a kernel's axis

_MARGIN, _TOP, _GAP, _SIGN = 36, 108, 40, 46
_SIGNS: Mapping[str, str] = {"x kernel": "×", "products": "=", "sum": "Σ"}
_STYLE = """body{margin:0 auto;max-width:1100px;padding:24px;font:15px/1.5 system-ui,sans-serif;color-scheme:light dark}
svg{max-width:100%;height:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:12px 0 6px}td,th{padding:2px 18px 2px 0;text-align:left}
.num{text-align:right}tfoot td{border-top:1px solid}"""


def check_file(path: Path | str) -> str:
    """The ending of a file that a value can be written to.

    Raises: InputError if it is another one.

    >>> check_file("told.SVG")
    '.svg'
    """
    return known_ending(path, FILES, what="a value is written as")


def save_value(told: Explanation, path: Path | str) -> Path:
    """Write an explained value, whole or not at all: a picture (.png, .svg), a page (.html), or its numbers (.npz).

    Raises: InputError if the ending is another one; RunError if the disk refuses.

    >>> import tempfile
    >>> import torch
    >>> from convscope import record
    >>> from convscope.explain import explain
    >>> recording = record(torch.nn.Conv2d(1, 1, 3), torch.ones(1, 1, 5, 5), keep=lambda op: True)
    >>> save_value(explain(recording, 0, unit=(0, 0, 1, 1)), Path(tempfile.mkdtemp()) / "told.npz").name
    'told.npz'
    """
    ending = check_file(path)
    if ending == ".npz":
        arrays: dict[str, Any] = numbers(told)
        return write_whole(path, lambda file: np.savez_compressed(file, **arrays))
    scene = lay_out_value(told)
    if ending == ".png":
        return write_whole(path, png_bytes(draw(scene, 0, zoom=2)))
    picture = write_svg(scene)
    return write_whole(path, picture if ending == ".svg" else _web_page(told, picture))


def numbers(told: Explanation) -> dict[str, np.ndarray]:
    """Every number of an explained value by its name, in float64: what the .npz file holds."""
    named = {
        "named_labels": [t.label for t in told.named], "named_from": [place(t.source, t.index) for t in told.named],
        "named_values": [t.value for t in told.named],
        "named_weights": [np.nan if t.weight is None else t.weight for t in told.named],
        "named_parts": [t.contribution for t in told.named],
    }  # fmt: skip
    patch = {} if told.index_CKD is None else {
        "patch": told.x_CK, "kernel": told.w_CK, "products": told.products, "inside": told.inside,
        "index": told.index_CKD, "bias": told.bias,
    }  # fmt: skip
    whole = {"total": told.total, "model_value": told.model_value, "difference": told.difference}
    return {k: np.asarray(v) for k, v in ({"unit": told.unit} | patch | named | whole).items()}


def lay_out_value(told: Explanation) -> Scene:
    """A page with the strongest channels as patch x kernel = products, or the largest terms, and the total.

    >>> import torch
    >>> from convscope import record
    >>> from convscope.explain import explain
    >>> recording = record(torch.nn.MaxPool2d(2), torch.rand(1, 1, 4, 4), keep=lambda op: True)
    >>> lay_out_value(explain(recording, 0, unit=(0, 0, 1, 1))).count
    1
    """
    windowed = told.index_CKD is not None and max(_flat(told.x_CK[0]).shape) <= WIDE
    items = list(_channels(told) if windowed else _terms(told))
    bottom = max(i.at[1] + (i.size[1] if isinstance(i, Box) else 0) for i in items)
    says = f"the model says {number(told.model_value)} (difference {number(told.difference)})"
    left = (_MARGIN, "start")
    sums = _sums(told) if windowed and told.combine == "sum" else told.formula or f"= {number(told.total)}"
    words = [((_MARGIN, 46), told.title, 21, "strong"), ((_MARGIN, 72), says, 14, "faint"),
             ((_MARGIN, bottom + 42), sums, 17, "ink")]  # fmt: skip
    items += [Words(at, text, size, tone, left[1]) for at, text, size, tone in words]
    return Scene((int(max(map(_end, items))) + _MARGIN, int(bottom + 68)), 1, told.title, tuple(items))


def _channels(told: Explanation) -> Iterable[Box | Words]:
    """A row for each of the strongest channels."""
    sums = told.channel_sums
    order = np.argsort(-np.abs(sums), kind="stable")[:CHANNELS] if told.combine == "sum" else [0]
    parts = {"patch": told.x_CK, "x kernel": told.w_CK, "products": told.products, "sum": sums}
    shown = parts if told.combine == "sum" else {"patch": told.x_CK}
    limits = {name: 1.5 * float(np.nan_to_num(np.abs(a)).max()) or 1.0 for name, a in parts.items()}
    drawn = np.concatenate([a[order].reshape(-1) for a in shown.values()])
    cell = max(46, int(widest(drawn, 11)) + 8)
    size = font_size(drawn, cell)
    high, wide = _flat(told.x_CK[0]).shape
    for row, c in enumerate(order):
        x, top = float(_MARGIN), _TOP + 26 + row * (high * cell + _GAP)
        yield Words((x, top - 10), f"input channel {c} of {len(told.x_CK)}", 13, "faint", "start")
        for name, array in shown.items():
            values, real = _flat(array[c]), _flat(told.inside[c]) if name != "sum" else np.ones((1, 1), dtype=bool)
            y = top + (high - len(values)) * cell / 2
            if name in _SIGNS:
                yield Words((x - _SIGN / 2, top + high * cell / 2 + 9), _SIGNS[name], 24, "faint")
            yield from _grid(values, real, at=(x, y), cell=cell, size=size, limit=limits[name])
            x += (wide if name != "sum" else 1) * cell + _SIGN
    if told.combine == "max":
        i, j = np.unravel_index(int(np.ravel_multi_index(told.winner, told.x_CK.shape)), (high, wide))
        yield Box((_MARGIN + float(j) * cell, _TOP + 26 + float(i) * cell), (cell, cell), None, "strong")


def _grid(
    values: np.ndarray, real: np.ndarray, *, at: tuple[float, float], cell: int, size: float, limit: float
) -> Iterable[Box | Words]:
    for (i, j), value in np.ndenumerate(values):
        x, y = at[0] + j * cell, at[1] + i * cell
        level = round(LEVELS * float(np.nan_to_num(value)) / limit) if real[i, j] else None
        yield Box((x, y), (cell, cell), level, "dashed" if level is None else "line")
        tone = "faint" if level is None else level
        yield Words((x + cell / 2, y + cell / 2 + 0.36 * size), figure(float(value)), size, tone)


def _terms(told: Explanation) -> Iterable[Box | Words]:
    """A line for each of the largest terms, with a bar for its part."""
    terms = told.largest(TERMS)
    total = len(told.named) + (told.x_CK.size if told.index_CKD is not None else 0)
    texts = []
    for t in terms:
        weight = "" if t.weight is None else f"× {figure(t.weight)}"
        texts.append((t.label, place(t.source, t.index), figure(t.value), weight, f"= {figure(t.contribution)}"))
    wide = [max((text_width(row[i], 14) for row in texts), default=0) + 26 for i in range(5)]
    limit = max((abs(float(np.nan_to_num(t.contribution))) for t in terms), default=0) or 1.0
    for n, (term, row) in enumerate(zip(terms, texts, strict=True)):
        x, y = float(_MARGIN), _TOP + 10 + 26 * n
        for i, text in enumerate(row):
            yield Words((x, y + 14), text, 14, "ink" if i else "faint", "start")
            x += wide[i]
        share = float(np.nan_to_num(term.contribution)) / limit
        yield Box((x, y), (max(1.0, 160 * abs(share)), 18), round(10 * np.sign(share)))
    left = total - len(terms)
    if left > 0:
        yield Words((_MARGIN, _TOP + 24 + 26 * len(terms)), f"and {left:,} smaller terms", 13, "faint", "start")


def _sums(told: Explanation) -> str:
    """The channels that are drawn, the others together, the bias, and the total."""
    sums = sorted(told.channel_sums.tolist(), key=lambda v: -abs(v))
    left = len(sums) - CHANNELS
    shown = added([*sums[:CHANNELS], sum(sums[CHANNELS:])] if left > 0 else sums)
    others = f" (the last: {left} more channels)" if left > 0 else ""
    bias = f" + bias {figure(told.bias)}" if told.named or told.op.name == "convolution" else ""
    return f"{shown}{others}{bias} = {figure(told.total)}"


def _flat(values: np.ndarray) -> np.ndarray:
    """As rows and columns: the slices of a volume one below another."""
    return np.atleast_2d(values).reshape(-1, np.atleast_1d(values).shape[-1])


def _end(item: Box | Words) -> float:
    if isinstance(item, Box):
        return item.at[0] + item.size[0]
    return item.at[0] + text_width(item.text, item.size * (1.2 if item.tone == "strong" else 1)) * (
        1 if item.anchor == "start" else 0.5
    )


def _web_page(told: Explanation, picture: str) -> str:
    title = escape(told.title)
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
            f"<body>{picture}{told.table().html()}</body></html>")  # fmt: skip
