"""Draws the pictures of docs/layers: `python docs/pictures.py`. The same every time, so a test can tell old ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

INK, FAINT, LINE = "#1f2933", "#6b7785", "#d5dae1"
BLUE, PALE, ORANGE, RUST, GREEN = "#85b3e4", "#e3edf8", "#f6b36b", "#d9741a", "#8fc7ae"
CHANNELS = ("#85b3e4", "#f6b36b", "#8fc7ae", "#c9a3d4")
CELL = 20

Colour = str | Callable[[int, int], str]


class Canvas:
    """A white page of 660 px, and the shapes that were put on it."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.shapes: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, fill: str, *, line: str = "#ffffff") -> None:
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" stroke="{line}"/>'
        )

    def text(
        self, x: float, y: float, words: str, *, size: int = 13, colour: str = INK, anchor: str = "middle"
    ) -> None:
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{words}</text>'
        )

    def path(self, points: Sequence[tuple[float, float]], *, colour: str = FAINT, width: float = 1.2) -> None:
        along = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.shapes.append(f'<polyline points="{along}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>')

    def arrow(self, x: float, y: float, *, length: float = 34) -> None:
        end = x + length
        self.path([(x, y), (end, y)])
        self.path([(end - 5, y - 4), (end, y), (end - 5, y + 4)])

    def grid(
        self, x: float, y: float, rows: Sequence[Sequence[object]] | tuple[int, int], fill: Colour, cell: int = CELL
    ) -> None:
        """Cells side by side: of numbers that are shown, or so many rows and columns of empty ones."""
        if isinstance(rows, tuple) and isinstance(fill, str):
            self.plain(x, y, rows, fill, cell)
            return
        table: Sequence[Sequence[object]]
        table = [[""] * rows[1]] * rows[0] if isinstance(rows, tuple) else rows  # pyright: ignore[reportAssignmentType]
        for r, row in enumerate(table):
            for c, value in enumerate(row):
                colour = fill if isinstance(fill, str) else fill(r, c)
                self.rect(x + c * cell, y + r * cell, cell, cell, colour)
                if value != "":
                    shown = str(value).replace("-", "\N{MINUS SIGN}")
                    self.text(x + (c + 0.5) * cell, y + (r + 0.5) * cell + 4, shown, size=11)

    def plain(self, x: float, y: float, shape: tuple[int, int], fill: str, cell: int) -> None:
        """Empty cells of one colour, as a rectangle and the lines in it."""
        height, width = shape[0] * cell, shape[1] * cell
        self.rect(x, y, width, height, fill)
        lines = [f"M{x:g},{y + k * cell:g}h{width}" for k in range(1, shape[0])]
        lines += [f"M{x + k * cell:g},{y:g}v{height}" for k in range(1, shape[1])]
        self.shapes.append(f'<path d="{"".join(lines)}" stroke="#ffffff"/>')

    def maps(
        self, x: float, y: float, colours: Sequence[Colour], *, size: int = 4, cell: int = 14, step: int = 9
    ) -> None:
        """Maps one behind the other, the first in front; each with its cells."""
        for k in reversed(range(len(colours))):
            self.grid(x + k * step, y - k * step, (size, size), colours[k], cell)

    def svg(self, title: str) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 {self.height}" width="660" '
            f'font-family="DejaVu Sans, Verdana, sans-serif" role="img"><title>{title}</title>'
            f'<rect width="660" height="{self.height}" rx="6" fill="#ffffff"/>'
        )
        return "\n".join([head, *self.shapes, "</svg>"]) + "\n"


def dense() -> Canvas:
    c = Canvas(170)
    c.maps(50, 72, [lambda r, q: RUST if r < 3 and q < 3 else BLUE] * 4, size=5)
    c.text(100, 162, "4 channels in", colour=FAINT)
    c.text(212, 104, "\N{ASTERISK OPERATOR}", size=22)
    for k, x in enumerate((245, 325, 405)):
        c.maps(x, 86, [ORANGE] * 4, size=3)
        c.text(x + 34, 162, f"kernel {k + 1}", colour=FAINT)
    c.arrow(486, 100)
    c.maps(540, 84, [lambda r, q: RUST if r == q == 0 else GREEN] * 3, size=5, cell=12)
    c.text(580, 162, "3 channels out", colour=FAINT)
    return c


def spatially_separable() -> Canvas:
    c = Canvas(140)
    sobel = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    c.grid(90, 24, sobel, BLUE, 28)
    c.text(132, 128, "9 weights", colour=FAINT)
    c.text(222, 74, "=", size=22)
    c.grid(280, 24, [[1], [2], [1]], ORANGE, 28)
    c.text(294, 128, "3 down", colour=FAINT)
    c.text(360, 74, "\N{MULTIPLICATION SIGN}", size=22)
    c.grid(410, 52, [[-1, 0, 1]], GREEN, 28)
    c.text(452, 128, "3 along", colour=FAINT)
    c.text(570, 74, "3 + 3 = 6", size=15)
    return c


def _apart(c: Canvas, x: float, *, kernels: bool = True) -> None:
    """Each channel with a kernel of its own."""
    for k, colour in enumerate(CHANNELS):
        y = 16 + 36 * k
        c.grid(x, y, (5, 5), colour, 6)
        if kernels:
            c.text(x + 50, y + 20, "\N{ASTERISK OPERATOR}", size=16)
            c.grid(x + 68, y + 4, (3, 3), colour, 7)
            c.arrow(x + 102, y + 15, length=26)
            c.grid(x + 140, y, (5, 5), colour, 6)


def depthwise() -> Canvas:
    c = Canvas(186)
    _apart(c, 240)
    c.text(255, 178, "in", colour=FAINT)
    c.text(326, 178, "a kernel each", colour=FAINT)
    c.text(395, 178, "out", colour=FAINT)
    return c


def depthwise_separable() -> Canvas:
    c = Canvas(186)
    _apart(c, 60)
    c.text(140, 178, "depthwise: a kernel each", colour=FAINT)
    for o, y in enumerate((34, 78, 122)):
        for k, colour in enumerate(CHANNELS):
            c.path([(234, 31 + 36 * k), (332, y + 8)], colour=LINE)
            c.rect(340 + 16 * k, y, 16, 16, colour)
        c.arrow(418, y + 8, length=30)
        c.grid(462, y - 8, (5, 5), GREEN, 6)
        c.text(520, y + 12, f"out {o + 1}", size=12, colour=FAINT)
    c.text(376, 178, "pointwise: 1x1, mixes them", colour=FAINT)
    return c


def pointwise() -> Canvas:
    c = Canvas(160)
    for k in reversed(range(4)):
        c.grid(130 + 11 * k, 66 - 11 * k, (5, 5), lambda r, q: RUST if (r, q) == (2, 2) else BLUE, 14)
    c.text(260, 92, "\N{ASTERISK OPERATOR}", size=22)
    for k in reversed(range(4)):
        c.rect(300 + 11 * k, 92 - 11 * k, 14, 14, ORANGE)
    c.arrow(378, 88)
    c.grid(440, 52, (5, 5), lambda r, q: RUST if (r, q) == (2, 2) else GREEN, 14)
    c.text(190, 152, "all channels at one place", colour=FAINT)
    c.text(322, 152, "1x1", colour=FAINT)
    c.text(475, 152, "one channel out", colour=FAINT)
    return c


def flattened() -> Canvas:
    c = Canvas(150)
    c.maps(60, 66, [BLUE] * 5, size=3, cell=18)
    c.text(108, 142, "X \N{MULTIPLICATION SIGN} Y \N{MULTIPLICATION SIGN} C", colour=FAINT)
    c.text(190, 84, "\N{ALMOST EQUAL TO}", size=22)
    for k in reversed(range(5)):
        c.rect(240 + 9 * k, 82 - 9 * k, 18, 18, ORANGE)
    c.text(266, 142, "C across", colour=FAINT)
    c.text(330, 84, "\N{MULTIPLICATION SIGN}", size=20)
    c.grid(372, 50, (3, 1), GREEN, 18)
    c.text(381, 142, "X down", colour=FAINT)
    c.text(432, 84, "\N{MULTIPLICATION SIGN}", size=20)
    c.grid(466, 68, (1, 3), CHANNELS[3], 18)
    c.text(493, 142, "Y along", colour=FAINT)
    c.text(590, 84, "C + X + Y", size=15)
    return c


def grouped() -> Canvas:
    c = Canvas(186)
    for g, colour in enumerate((BLUE, ORANGE)):
        y = 36 + 80 * g
        c.maps(110, y, [colour] * 2, size=4, cell=12)
        c.text(212, y + 26, "\N{ASTERISK OPERATOR}", size=20)
        for k in range(2):
            c.maps(248 + 62 * k, y + 8, [colour] * 2, size=3, cell=12)
        c.arrow(386, y + 20)
        c.maps(444, y, [colour] * 2, size=4, cell=12)
        c.text(560, y + 26, f"group {g + 1}", colour=FAINT)
    return c


def shuffled_grouped() -> Canvas:
    c = Canvas(190)
    colours = [CHANNELS[0]] * 3 + [CHANNELS[1]] * 3
    order = [0, 3, 1, 4, 2, 5]
    for place, source in enumerate(order):
        c.path([(252, 27 + 24 * source), (396, 27 + 24 * place)], colour=colours[source], width=2)
    for place, source in enumerate(order):
        for x, number in ((120, place), (400, source)):
            c.rect(x, 16 + 24 * place, 130, 22, colours[number])
            c.text(x + 65, 31 + 24 * place, f"channel {number}", size=12)
    c.text(185, 182, "after a convolution in 2 groups", colour=FAINT)
    c.text(465, 182, "interleaved", colour=FAINT)
    return c


def dilated() -> Canvas:
    c = Canvas(190)
    taps = (0, 2, 4)
    c.grid(120, 14, (7, 7), lambda r, q: RUST if r in taps and q in taps else BLUE if max(r, q) < 5 else PALE, 21)
    c.text(193, 180, "7x7 in, taps 2 apart", colour=FAINT)
    c.arrow(300, 86)
    c.grid(370, 54, (3, 3), lambda r, q: RUST if r == q == 0 else GREEN, 21)
    c.text(402, 180, "3x3 out", colour=FAINT)
    c.text(535, 82, "2 (3 \N{MINUS SIGN} 1) + 1 = 5", size=14)
    c.text(535, 104, "elements wide", size=12, colour=FAINT)
    return c


def transposed() -> Canvas:
    c = Canvas(190)

    def inside(r: int, q: int) -> str:
        if r == q == 2:
            return RUST
        if r in (2, 3) and q in (2, 3):
            return BLUE
        return ORANGE if r < 3 and q < 3 else PALE

    c.grid(110, 16, (6, 6), inside, 24)
    c.text(182, 180, "2x2 in, a full border of zeros", colour=FAINT)
    c.arrow(300, 88)
    c.grid(370, 40, (4, 4), lambda r, q: RUST if r == q == 0 else GREEN, 24)
    c.text(418, 180, "4x4 out", colour=FAINT)
    c.text(555, 92, "2 + 3 \N{MINUS SIGN} 1 = 4", size=14)
    return c


def axes() -> Canvas:
    c = Canvas(170)
    c.grid(40, 76, (1, 7), lambda _, q: RUST if 1 <= q <= 3 else BLUE, 20)
    c.arrow(100, 114, length=24)
    c.text(110, 160, "ndim=1: a sequence", colour=FAINT)
    c.grid(260, 24, (5, 5), lambda r, q: RUST if r < 3 and q < 3 else BLUE, 20)
    c.text(310, 160, "ndim=2: a picture", colour=FAINT)
    for k in reversed(range(5)):
        near = k < 3
        c.grid(
            440 + 14 * k, 74 - 13 * k, (4, 4), lambda r, q, near=near: RUST if near and r < 3 and q < 3 else BLUE, 16
        )
    c.text(520, 160, "ndim=3: frames, slices", colour=FAINT)
    return c


def pooling() -> Canvas:
    c = Canvas(160)
    values = [[1, 3, 2, 0], [5, 2, 1, 1], [0, 2, 8, 4], [2, 4, 3, 1]]
    largest = {(1, 0), (0, 2), (3, 1), (2, 2)}

    def quarter(r: int, q: int) -> str:
        return CHANNELS[2 * (r // 2) + q // 2] if (r, q) in largest else PALE

    c.grid(60, 22, values, quarter, 26)
    c.arrow(184, 74)
    c.grid(244, 48, [[5, 2], [4, 8]], lambda r, q: CHANNELS[2 * r + q], 26)
    c.text(270, 150, "the largest", colour=FAINT)
    c.arrow(316, 74)
    back = [[v if (r, q) in largest else 0 for q, v in enumerate(row)] for r, row in enumerate(values)]
    c.grid(372, 22, back, quarter, 26)
    c.text(424, 150, "put back", colour=FAINT)
    c.grid(548, 48, [[2.75, 1], [2, 4]], BLUE, 36)
    c.text(584, 150, "the mean", colour=FAINT)
    return c


PICTURES: Mapping[str, Callable[[], Canvas]] = {
    "dense": dense,
    "spatially-separable": spatially_separable,
    "depthwise-separable": depthwise_separable,
    "depthwise": depthwise,
    "pointwise": pointwise,
    "flattened": flattened,
    "grouped": grouped,
    "shuffled-grouped": shuffled_grouped,
    "dilated": dilated,
    "transposed": transposed,
    "axes": axes,
    "pooling": pooling,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (Path(__file__).parent / "layers" / f"{name}.svg").write_text(draw().svg(name.replace("-", " ")))
