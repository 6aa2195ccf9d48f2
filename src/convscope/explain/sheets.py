"""Sheets: pictures and maps side by side, each under its label and over its colour scale.

Shape suffixes: C channels, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from convscope.explain.pictures import Scale, block_means
from convscope.fonts import font
from convscope.table import MINUS, number, printable

if TYPE_CHECKING:
    from convscope.explain.attribution import Attribution

SPIKY = ("saliency", "smooth-grad", "integrated-gradients")  # a few pixels hold most: the scale ends before them
ENDS_AT = 99.0  # percent of the magnitudes that their scale holds
_INK, _FAINT, _LINE = "#1f2933", "#6b7785", "#d5dae1"
_MARGIN, _GAP, _LABEL, _BAR = 20, 12, 18, 30


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One picture of a sheet: HxWx3 uint8 pixels, its label, and the scale of its colours if it has one."""

    pixels_HWC: np.ndarray
    label: str = ""
    scale: Scale | None = None


def as_rgb(picture_HWC: np.ndarray) -> np.ndarray:
    """Pixels in 0..1 as uint8 RGB: grey is repeated, transparency lies on white, other channels become their mean.

    Shapes: HxWxC -> HxWx3.

    >>> as_rgb(np.ones((1, 1, 1))).tolist()
    [[[255, 255, 255]]]
    """
    x = np.clip(np.nan_to_num(np.asarray(picture_HWC, dtype=np.float64)), 0, 1)
    channels = x.shape[2]
    if channels in (2, 4):
        x = x[..., :-1] * x[..., -1:] + 1 - x[..., -1:]
    if x.shape[2] not in (1, 3):
        x = x.mean(axis=2, keepdims=True)
    return np.rint(255 * (x if x.shape[2] == 3 else x.repeat(3, axis=2))).astype(np.uint8)


def sheet(picture_HWC: np.ndarray | None, found: Sequence["Attribution"], *, title: str = "") -> Image.Image:
    """A picture, each map beside it with its scale, and each map over the picture.

    Shapes: picture HxWxC in 0..1, of the maps' size; None draws the maps alone.

    >>> from convscope.explain.attribution import Attribution
    >>> made = Attribution("occlusion", "class 1", np.zeros((4, 4), np.float32), True, 0.5)
    >>> sheet(np.zeros((4, 4, 1)), (made,)).mode
    'RGB'
    """
    side = 320 if len(found) == 1 else 224
    scales = [scale_of(a) for a in found]
    maps = [Panel(s.paint(_fit_map(a.map, side)), a.method, s) for a, s in zip(found, scales, strict=True)]
    rows: list[list[Panel | None]] = [[*maps[i : i + 3]] for i in range(0, len(maps), 3)]
    if picture_HWC is not None:
        rgb = _fit(as_rgb(picture_HWC), side)
        over = [_over(rgb, a, m) for a, m in zip(found, maps, strict=True)]
        first = Panel(rgb, "what the network sees")
        rows = [[first, *maps, *over]] if len(found) == 1 else _interleaved(first, maps, over)
    lines = [_promise(a) for a in found if a.gap is not None]
    if any(a.method in SPIKY for a in found):
        lines.append(f"a scale with ≥ ends at {ENDS_AT:g} % of the magnitudes; larger ones keep its end colour")
    if layers := sorted({a.layer for a in found if a.layer}):
        lines.append(f"layer of Grad-CAM: {', '.join(layers)}")
    return page(rows, title=title, lines=lines)


def scale_of(found: "Attribution") -> Scale:
    """The scale of a map: to its largest magnitude, or to the 99th percentile where few pixels hold most."""
    sizes = np.abs(found.map[np.isfinite(found.map)])
    largest = float(sizes.max(initial=0))
    limit = float(np.percentile(sizes, ENDS_AT)) if found.method in SPIKY and sizes.size else largest
    return Scale(limit or largest, found.signed)


def page(
    rows: Sequence[Sequence[Panel | None]], *, title: str = "", shape: str = "", lines: Sequence[str] = ()
) -> Image.Image:
    """Panels in rows on a white page, with a title above and captions below."""
    panels, title = [p for row in rows for p in row if p], printable(title)
    tile_h, tile_w = (max(p.pixels_HWC.shape[a] for p in panels) for a in (0, 1))
    tile_w = max(tile_w, *(int(font(11).getlength(p.label)) + 1 for p in panels))
    heights = [tile_h + (_LABEL if _any_label(row) else 0) + (_BAR if _any_scale(row) else 0) for row in rows]
    words = [font(18).getlength(title) + 12 + font(13).getlength(shape), *(font(12).getlength(t) for t in lines)]
    width = int(max(max(len(row) for row in rows) * (tile_w + _GAP) - _GAP, *words)) + 2 * _MARGIN
    top = _MARGIN + (34 if title else 0)
    below = top + sum(heights) + _GAP * len(rows)
    sheet = Image.new("RGB", (width, below + 18 * len(lines) + _MARGIN - _GAP // 2), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN + 16), title, fill=_INK, font=font(18), anchor="ls")
    draw.text((_MARGIN + font(18).getlength(title) + 12, _MARGIN + 16), shape, fill=_FAINT, font=font(13), anchor="ls")
    y = top
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            if panel:
                _draw(sheet, panel, (_MARGIN + column * (tile_w + _GAP), y), label=_any_label(row))
        y += height + _GAP
    for index, line in enumerate(lines):
        draw.text((_MARGIN, below + 18 * index), line, fill=_FAINT, font=font(12))
    return sheet


def zoomed(pixels_HWC: np.ndarray, side: int) -> np.ndarray:
    """Whole pixels repeated until the longer side nearly reaches `side`. Shapes: HxWxC -> hxwxC."""
    zoom = max(1, side // max(pixels_HWC.shape[:2]))
    return pixels_HWC.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _any_label(row: Sequence[Panel | None]) -> bool:
    return any(p and p.label for p in row)


def _any_scale(row: Sequence[Panel | None]) -> bool:
    return any(p and p.scale for p in row)


def _draw(sheet: Image.Image, panel: Panel, corner: tuple[int, int], *, label: bool) -> None:
    (x, y), draw = corner, ImageDraw.Draw(sheet)
    height, width = panel.pixels_HWC.shape[:2]
    if label:
        draw.text((x, y), panel.label, fill=_FAINT, font=font(11))
        y += _LABEL
    sheet.paste(Image.fromarray(np.ascontiguousarray(panel.pixels_HWC)), (x, y))
    draw.rectangle((x - 1, y - 1, x + width, y + height), outline=_LINE)
    if panel.scale:
        _bar(sheet, panel, (x, y + height + 5), width)


def _bar(sheet: Image.Image, panel: Panel, corner: tuple[int, int], width: int) -> None:
    """The scale as wide as its map, with the numbers of its ends and of zero."""
    scale, (x, y) = panel.scale or Scale(1.0, False), corner
    ramp = Scale(1.0, scale.signed).paint(np.linspace(-1 if scale.signed else 0, 1, width))
    sheet.paste(Image.fromarray(np.broadcast_to(ramp, (8, width, 3)).copy()), corner)
    draw, more = ImageDraw.Draw(sheet), "≥ " if panel.label in SPIKY else ""
    draw.rectangle((x, y, x + width - 1, y + 7), outline=_LINE)
    low = "0" if not scale.signed else f"{'≤ ' if more else ''}{MINUS}{number(scale.limit)}"
    for place, text, anchor in ((0.0, low, "la"), (0.5, "0" if scale.signed else "", "ma"),
                                (1.0, f"{more}{number(scale.limit)}", "ra")):  # fmt: skip
        draw.text((x + place * (width - 1), y + 10), text, fill=_INK, font=font(10), anchor=anchor)


def _fit(pixels_HWC: np.ndarray, side: int) -> np.ndarray:
    """The pixels zoomed by a whole number, or shrunk by block means as `_fit_map` does."""
    shrink = -(-max(pixels_HWC.shape[:2]) // side)
    if shrink == 1:
        return zoomed(pixels_HWC, side)
    means = [block_means(pixels_HWC[..., c].astype(np.float64), shrink) for c in range(3)]
    return np.rint(np.stack(means, axis=2)).astype(np.uint8)


def _fit_map(map_HW: np.ndarray, side: int) -> np.ndarray:
    return zoomed(block_means(map_HW, -(-max(map_HW.shape) // side)), side)


def _interleaved(first: Panel, maps: list[Panel], over: list[Panel]) -> list[list[Panel | None]]:
    """Three maps a row, the same three over the picture below them, and the picture in the first column."""
    rows: list[list[Panel | None]] = []
    for i in range(0, len(maps), 3):
        rows += [[None, *maps[i : i + 3]], [None, *over[i : i + 3]]]
    rows[0][0] = first
    return rows


def _over(rgb_HWC: np.ndarray, found: "Attribution", painted: Panel) -> Panel:
    """The picture in grey, covered by the map's colour the more, the larger the magnitude."""
    limit = (painted.scale.limit if painted.scale else 0.0) or 1.0
    share = np.abs(_fit_map(found.map, max(rgb_HWC.shape[:2]))) / limit
    cover = 0.75 * np.clip(np.nan_to_num(share, nan=1.0), 0, 1)[..., None]
    grey = rgb_HWC.mean(axis=2, keepdims=True)
    return Panel(np.rint((1 - cover) * grey + cover * painted.pixels_HWC).astype(np.uint8), f"{painted.label} over it")


def _promise(found: "Attribution") -> str:
    total = float(found.map.sum(dtype=np.float64))
    return f"{found.method}: the map adds up to {number(total)}, {number(found.gap or 0.0)} off the score it explains"
