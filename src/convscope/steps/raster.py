"""A scene as an animated GIF or PNG."""

import io
from functools import cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from convscope.errors import InputError
from convscope.explain.pictures import Scale
from convscope.fonts import font
from convscope.steps.page import LEVELS, Box, Scene, Words

PAGE, INK, FAINT, LINE, TRACK = "#ffffff", "#1f2933", "#6b7785", "#d5dae1", "#edf0f3"
_PIXELS = 3e8  # of all frames together, so that they fit into memory


def animation(scene: Scene, kind: str) -> bytes:
    """The bytes of a "GIF" or an animated "PNG": one picture a frame, again and again, the last one longer.

    Pixels are doubled for sharp text as long as the frames are few.
    Raises: InputError if all frames together would be larger than 300 million pixels.
    Source: the PNG specification, third edition (W3C 2025), for animated PNG; GIF89a.
    """
    pixels = scene.size[0] * scene.size[1] * scene.count
    if pixels > _PIXELS:
        raise InputError(f"conv: {scene.count} frames of {scene.size[0]}x{scene.size[1]} px are too many for a "
                         f"{kind}; write an .svg, or use a smaller input")  # fmt: skip
    zoom = 2 if 4 * pixels <= _PIXELS / 3 else 1
    pictures = [draw(scene, n, zoom=zoom) for n in range(scene.count)]
    each, last = (round(1000 * s) for s in scene.seconds())
    lasting = [each] * (scene.count - 1) + [last]
    palette = _Palette(scene)
    pictures = [palette.apply(p) for p in pictures]
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:], duration=lasting, loop=0)
    return buffer.getvalue()


def draw(scene: Scene, frame: int, *, zoom: int = 1) -> Image.Image:
    """One frame of a scene as a picture, `zoom` pixels for each px of the page.

    >>> draw(Scene((40, 30), 1, "", ()), 0).size
    (40, 30)
    """
    picture = Image.new("RGB", (scene.size[0] * zoom, scene.size[1] * zoom), PAGE)
    canvas = ImageDraw.Draw(picture)
    for item in scene.items:
        if item.life[0] <= frame <= item.life[1]:
            if isinstance(item, Box):
                _box(canvas, item, frame, zoom)
            else:
                _words(canvas, item, zoom)
    return picture


@cache
def fill(level: int) -> tuple[int, int, int]:
    """The colour of a level, -16 to 16.

    >>> fill(0)
    (255, 255, 255)
    """
    red, green, blue = Scale(LEVELS, signed=True).paint(np.array(float(level))).tolist()
    return red, green, blue


def on(colour: tuple[int, int, int]) -> str:
    """Black or white: what is read more easily on a colour.

    Source: WCAG 2.2, relative luminance and contrast.

    >>> on((255, 255, 255)), on((18, 58, 122))
    ('#000000', '#ffffff')
    """
    share = np.array(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def _box(canvas: ImageDraw.ImageDraw, box: Box, frame: int, zoom: int) -> None:
    x, y = box.path[frame - box.life[0]] if box.path else box.at
    left, top = round(x * zoom), round(y * zoom)
    right, bottom = round((x + box.size[0]) * zoom), round((y + box.size[1]) * zoom)
    corners = (left, top, right, bottom)
    if box.edge in ("bar", "track"):
        canvas.rectangle(corners, fill=FAINT if box.edge == "bar" else TRACK)
    elif box.edge == "strong":
        canvas.rectangle(_wider(corners, 3 * zoom), outline=PAGE, width=5 * zoom)
        canvas.rectangle(_wider(corners, 2 * zoom), outline=INK, width=3 * zoom)
    elif box.edge == "tap":
        canvas.rectangle(_wider(corners, 0), outline=INK, width=2 * zoom)
    else:
        if box.level is not None:
            canvas.rectangle(corners, fill=fill(box.level))
        if box.edge == "dashed":
            _dashed(canvas, corners, zoom)
        else:
            canvas.rectangle(corners, outline=LINE, width=zoom)


def _wider(corners: tuple[int, int, int, int], by: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = corners
    return left - by, top - by, right + by, bottom + by


def _dashed(canvas: ImageDraw.ImageDraw, corners: tuple[int, int, int, int], zoom: int) -> None:
    left, top, right, bottom = corners
    dash = 4 * zoom
    for x in range(left, right, 2 * dash):
        for y in (top, bottom):
            canvas.line((x, y, min(x + dash, right), y), fill=LINE, width=zoom)
    for y in range(top, bottom, 2 * dash):
        for x in (left, right):
            canvas.line((x, y, x, min(y + dash, bottom)), fill=LINE, width=zoom)


def _words(canvas: ImageDraw.ImageDraw, words: Words, zoom: int) -> None:
    tones = {"ink": INK, "faint": FAINT, "strong": INK}
    colour = on(fill(words.tone)) if isinstance(words.tone, int) else tones[words.tone]
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[words.anchor]
    shape = font(round(words.size * zoom), bold=words.tone == "strong")
    canvas.text((words.at[0] * zoom, words.at[1] * zoom), words.text, fill=colour, font=shape, anchor=anchor)


class _Palette:
    """The colours of a scene, and between them those at the edges of letters.

    Pillow's own search for the nearest colour is coarse and makes white a light grey; flat areas must stay exact.
    """

    def __init__(self, scene: Scene) -> None:
        levels = {0} | {b.level for b in scene.items if isinstance(b, Box) and b.level is not None}
        pairs = [(fill(level), ImageColor.getrgb(on(fill(level)))) for level in sorted(levels)]
        pairs += [(ImageColor.getrgb(PAGE), ImageColor.getrgb(c)) for c in (FAINT, LINE, TRACK)]
        shares = np.linspace(0, 1, 6)[:, None]  # 6 x 33 levels and 3 x 6 others are below 256
        blends = [np.array(a) * (1 - shares) + np.array(b) * shares for a, b in pairs]
        self.colours = np.unique(np.rint(np.concatenate(blends)).astype(np.int64), axis=0)
        self.nearest = np.full(2**24, -1, dtype=np.int16)  # by colour; -1 until one is met

    def apply(self, picture: Image.Image) -> Image.Image:
        """The picture with each pixel as the number of its nearest colour."""
        red, green, blue = (np.asarray(channel, dtype=np.int32) for channel in picture.split())
        packed = (red << 16) | (green << 8) | blue
        found = self.nearest[packed]
        if (found < 0).any():
            new = np.unique(packed[found < 0])
            apart = np.stack([new >> 16, new >> 8 & 255, new & 255], axis=1)[:, None] - self.colours
            self.nearest[new] = (apart**2).sum(axis=2).argmin(axis=1)
            found = self.nearest[packed]
        numbered = Image.fromarray(found.astype(np.uint8))  # "L", which becomes "P" with its palette
        numbered.putpalette(self.colours.astype(np.uint8).tobytes())
        return numbered
