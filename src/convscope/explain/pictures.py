"""Feature maps and kernels as pictures: one scale for a layer, its numbers beside it, nothing hidden.

Shape suffixes: C maps, H rows, W columns.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from convscope.errors import InputError
from convscope.files import write_whole
from convscope.fonts import font
from convscope.table import MINUS, number, printable

# The colour scales, as anchors at equal steps. The neutral of a diverging one is the page's colour.
ANCHORS: Mapping[str, tuple[str, ...]] = {
    "diverging": ("#123a7a", "#2f6fbf", "#85b3e4", "#ffffff", "#f6b36b", "#d9741a", "#7f3b06"),
    "diverging-dark": ("#b9d5f4", "#5c98dc", "#2a5a9c", "#14181f", "#8f4c14", "#dd8430", "#fbd3a2"),
    "sequential": ("#0b1230", "#1b3f77", "#2a7591", "#5fac8d", "#c3d67f", "#fdf7dc"),
}
NOT_FINITE = (255, 0, 255)
MAX_MAPS = 64

_INK, _FAINT, _LINE = "#1f2933", "#6b7785", "#d5dae1"
_MARGIN, _GAP, _BAR = 20, 10, (220, 10)
_PAGE, _TILE = 1200, 144  # px that a page is wide at most, and a tile about


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to colours: `signed` runs from -limit to limit on the diverging scale, else from 0 to limit."""

    limit: float
    signed: bool

    @classmethod
    def of(cls, values: np.ndarray) -> "Scale":
        """The scale that holds every finite value.

        >>> Scale.of(np.array([-3.0, 1.0, np.nan]))
        Scale(limit=3.0, signed=True)
        """
        finite = values[np.isfinite(values)]
        return cls(float(np.abs(finite).max(initial=0)), bool((finite < 0).any()))

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Colours of values of any shape: uint8, a last axis of 3 added; beyond the limit the end colour stays.

        >>> Scale(1.0, signed=True).paint(np.zeros(1)).tolist()
        [[255, 255, 255]]
        """
        share = np.nan_to_num(np.asarray(values, dtype=np.float64), posinf=0, neginf=0) / (self.limit or 1.0)
        place = (share + 1) / 2 if self.signed else share
        colours = colour_table("diverging" if self.signed else "sequential")
        painted = colours[np.rint(np.clip(place, 0, 1) * (len(colours) - 1)).astype(np.intp)]
        painted[~np.isfinite(values)] = NOT_FINITE
        return painted


@cache
def colour_table(name: str) -> np.ndarray:
    """The 257 colours of a scale in `ANCHORS` (257, so that zero has a colour of its own in the middle).

    Shapes: result 257x3, uint8.

    >>> colour_table("diverging")[128].tolist()
    [255, 255, 255]
    """
    anchors = np.array([tuple(bytes.fromhex(a[1:])) for a in ANCHORS[name]], dtype=np.float64)
    where = np.linspace(0, 1, len(anchors))
    channels = [np.interp(np.linspace(0, 1, 257), where, anchors[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def colour(values: np.ndarray, *, limit: float | None = None) -> np.ndarray:
    """The colours of one map: blue - white - orange about 0 if a value is negative, else dark to light from 0.

    NaN and infinite values are magenta. `limit`: the magnitude that gets the end colour; else the largest found.
    Shapes: values HxW -> HxWx3, uint8.
    Raises: InputError if the limit is not a positive finite number.

    >>> colour(np.array([[-1.0, 0.0, np.nan]])).tolist()
    [[[18, 58, 122], [255, 255, 255], [255, 0, 255]]]
    """
    found = Scale.of(np.asarray(values))
    if limit is None:
        return found.paint(values)
    if not 0 < limit < float("inf"):
        raise InputError(f"colour: limit is {limit:g}; use a positive finite number")
    return Scale(limit, found.signed).paint(values)


def grid(
    maps_CHW: np.ndarray,
    *,
    title: str = "",
    columns: int | None = None,
    scale: int | None = None,
    shared: bool = True,
) -> Image.Image:
    """Maps side by side on a white page, with their numbers, one colour bar, and a caption that counts.

    `scale`: px that one value becomes; chosen to fit if None, when maps larger than their tile are shown by block
    means (the caption says so). `shared`: one scale for all maps, or else each map by its own largest value.
    At most 64 maps are drawn; the scale is that of all of them.
    Shapes: maps CxHxW.
    Raises: InputError if there are not three axes, an axis is empty, or columns or scale are below 1.

    >>> grid(np.zeros((2, 5, 5)), title="C1").mode
    'RGB'
    """
    maps_CHW = np.asarray(maps_CHW)
    _check(maps_CHW, columns=columns, scale=scale)
    drawn = maps_CHW[:MAX_MAPS]
    columns = min(columns or _columns(len(drawn)), len(drawn))
    zoom, shrink = (scale, 1) if scale else _fit(drawn.shape[1:], columns)
    whole = Scale.of(maps_CHW)
    scales = [whole if shared else Scale(Scale.of(m).limit, whole.signed) for m in drawn]
    tiles = [_tile(m, s, zoom=zoom, shrink=shrink) for m, s in zip(drawn, scales, strict=True)]
    shape = "x".join(str(n) for n in maps_CHW.shape)
    lines = _captions(maps_CHW, zoom=zoom, shrink=shrink, shared=shared)
    return _page(tiles, columns, heading=(" ".join(title.split()), shape), bar=(whole, shared), lines=lines)


def save_png(image: Image.Image, path: Path | str) -> Path:
    """Write the picture as a PNG file, whole or not at all.

    Raises: RunError if the disk refuses.

    >>> import tempfile
    >>> save_png(grid(np.zeros((1, 3, 3))), Path(tempfile.mkdtemp()) / "maps.png").name
    'maps.png'
    """
    return write_whole(path, png_bytes(image))


def data_uri(image: Image.Image) -> str:
    """The picture as a `data:` address, for a page that stands alone.

    Source: RFC 2397.

    >>> data_uri(grid(np.zeros((1, 3, 3))))[:26]
    'data:image/png;base64,iVBO'
    """
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def png_bytes(image: Image.Image) -> bytes:
    """The picture as a PNG file in memory."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)  # a tenth of the time of `optimize`, and a tenth more bytes
    return buffer.getvalue()


def _check(maps_CHW: np.ndarray, *, columns: int | None, scale: int | None) -> None:
    if maps_CHW.ndim != 3 or 0 in maps_CHW.shape:
        raise InputError(f"grid: maps have the shape {maps_CHW.shape}; give CxHxW with no empty axis")
    for name, value in (("columns", columns), ("scale", scale)):
        if value is not None and value < 1:
            raise InputError(f"grid: {name} is {value}; use 1 or more")


def _columns(count: int) -> int:
    """Full rows of at most eight: 10 maps are two rows of 5."""
    return count if count <= 4 else -(-count // -(-count // 8))


def _fit(shape_HW: Sequence[int], columns: int) -> tuple[int, int]:
    """(zoom, shrink) that bring the longer side near its tile's size; one of them is 1."""
    room = max(_TILE, _PAGE // columns - _GAP)
    longest = max(shape_HW)
    return max(1, (_TILE if columns > 4 else min(room, 400)) // longest), -(-longest // room)


def _tile(map_HW: np.ndarray, scale: Scale, *, zoom: int, shrink: int) -> Image.Image:
    """One map at an integer zoom, nearest, in a fine frame."""
    painted = scale.paint(block_means(map_HW, shrink))
    painted = painted.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return Image.fromarray(np.pad(painted, ((1, 1), (1, 1), (0, 0)), constant_values=214))


def block_means(map_HW: np.ndarray, size: int) -> np.ndarray:
    """Means of size x size blocks; the last ones are filled up with the edge. A NaN makes its block NaN."""
    if size == 1:
        return map_HW
    height, width = (-(-n // size) for n in map_HW.shape)
    fill = [(0, blocks * size - n) for blocks, n in zip((height, width), map_HW.shape, strict=True)]
    blocks = np.pad(map_HW, fill, mode="edge").reshape(height, size, width, size)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        return blocks.mean(axis=(1, 3), dtype=np.float64)


def _captions(maps_CHW: np.ndarray, *, zoom: int, shrink: int, shared: bool) -> list[str]:
    count, drawn = len(maps_CHW), min(len(maps_CHW), MAX_MAPS)
    counted = f"{drawn} of {count} maps" if drawn < count else f"{count} map{'s' if count > 1 else ''}"
    size = f"one dot is the mean of {shrink}x{shrink} values" if shrink > 1 else f"one value is {zoom}x{zoom} px"
    lines = [" · ".join([counted, size, "one scale" if shared else "each map on its own scale"])]
    if bad := int((~np.isfinite(maps_CHW)).sum()):
        lines.append(f"{bad:,} of {maps_CHW.size:,} values are NaN or infinite (magenta)")
    return lines


def _page(
    tiles: Sequence[Image.Image],
    columns: int,
    *,
    heading: tuple[str, str],
    bar: tuple[Scale, bool],
    lines: Sequence[str],
) -> Image.Image:
    """Title and shape above, tiles with their index, then the bar and the captions."""
    tile_w, tile_h = tiles[0].size
    step_w, step_h = tile_w + _GAP, tile_h + _GAP + 14
    rows = -(-len(tiles) // columns)
    words = [font(18).getlength(printable(heading[0])) + 12 + font(13).getlength(heading[1])]
    words += [font(12).getlength(line) for line in lines]
    width = int(max(columns * step_w - _GAP, *words, _BAR[0])) + 2 * _MARGIN
    top = _MARGIN + 34
    below = top + rows * step_h
    page = Image.new("RGB", (width, below + 44 + 18 * len(lines) + _MARGIN - 8), "white")
    draw = ImageDraw.Draw(page)
    _heading(draw, *heading)
    for index, tile in enumerate(tiles):
        x, y = _MARGIN + index % columns * step_w, top + index // columns * step_h
        page.paste(tile, (x, y + 14))
        draw.text((x, y - 1), str(index), fill=_FAINT, font=font(10))
    colour_bar(page, (_MARGIN, below + 8), *bar)
    for index, line in enumerate(lines):
        draw.text((_MARGIN, below + 44 + 18 * index), line, fill=_FAINT, font=font(12))
    return page


def _heading(draw: ImageDraw.ImageDraw, title: str, shape: str) -> None:
    baseline, title = _MARGIN + 16, printable(title)
    draw.text((_MARGIN, baseline), title, fill=_INK, font=font(18), anchor="ls")
    start = _MARGIN + (font(18).getlength(title) + 12 if title else 0)
    draw.text((start, baseline), shape, fill=_FAINT, font=font(13), anchor="ls")


def colour_bar(page: Image.Image, corner: tuple[int, int], scale: Scale, shared: bool) -> None:
    """The scale from end to end, with the numbers of its ends and of zero."""
    (x, y), (width, height) = corner, _BAR
    ramp = Scale(1.0, scale.signed).paint(np.linspace(-1 if scale.signed else 0, 1, width))
    page.paste(Image.fromarray(np.broadcast_to(ramp, (height, width, 3)).copy()), corner)
    draw = ImageDraw.Draw(page)
    draw.rectangle((x, y, x + width - 1, y + height - 1), outline=_LINE)
    low, high = (number(-scale.limit), number(scale.limit)) if shared else (f"{MINUS}max", "max")
    ticks = [(0.0, low), (0.5, "0"), (1.0, high)] if scale.signed else [(0.0, "0"), (1.0, high)]
    for place, text in ticks:
        anchor = {0.0: "la", 0.5: "ma", 1.0: "ra"}[place]
        draw.text((x + place * (width - 1), y + height + 4), text, fill=_INK, font=font(11), anchor=anchor)
