"""A scene as one SVG file that moves by itself: CSS alone, no script.

It is light or dark as the reader's machine is, and stands still on its last frame where motion is not wanted.
"""

from collections.abc import Iterable
from html import escape

import numpy as np

from convscope.explain.pictures import colour_table
from convscope.steps.page import LEVELS, Box, Scene, Words
from convscope.steps.raster import FAINT, INK, LINE, PAGE, TRACK, on

# ink, faint, line, page, track: of the light page and of the dark one
_LIGHT = (INK, FAINT, LINE, PAGE, TRACK)
_DARK = ("#e6eaf0", "#93a0b0", "#3a4452", "#14181f", "#242b35")
_NAMES = ("ink", "faint", "line", "page", "track")
_MOVE = 0.3  # the part of a frame's time in which a box moves on


def write_svg(scene: Scene) -> str:
    """The scene as SVG text, animated with CSS.

    Source: SVG 2 and CSS Animations Level 1 (W3C); Media Queries Level 5 for `prefers-reduced-motion`.

    >>> write_svg(Scene((40, 30), 1, "a & b", ())).splitlines()[1]
    '<title>a &amp; b</title>'
    """
    width, height = scene.size
    clock = _Clock(scene)
    body = [_element(item, scene, clock) for item in scene.items]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="{escape(scene.title)}">',
            f"<title>{escape(scene.title)}</title>",
            f"<style>\n{_style(scene)}\n@media (prefers-reduced-motion: no-preference) {{\n{clock.rules()}\n}}</style>",
            f'<rect class="page" width="{width}" height="{height}"/>',
            *body,
            "</svg>\n",
        ]
    )


class _Clock:
    """The animations that have been asked for, each named once."""

    def __init__(self, scene: Scene) -> None:
        self.each, last = scene.seconds()
        self.count, self.total = scene.count, self.each * (scene.count - 1) + last
        self.lives: set[tuple[int, int]] = set()
        self.paths: dict[tuple[int, tuple[tuple[float, float], ...]], str] = {}

    def share(self, frame: float) -> str:
        """When a frame begins, in percent of the whole; all frames have passed at 100."""
        return _short(100 if frame >= self.count else 100 * frame * self.each / self.total)

    def life(self, first: int, last: int) -> str:
        """The class of what is there from the first frame to the last, empty if always."""
        if (first, last) == (0, self.count - 1):
            return ""
        self.lives.add((first, last))
        still = "" if last == self.count - 1 else " gone"  # where nothing moves, the last frame is shown
        return f"a{first}-{last}{still}"

    def path(self, first: int, steps: tuple[tuple[float, float], ...]) -> str:
        """The class of what moves along these steps from the first frame on."""
        return self.paths.setdefault((first, steps), f"p{len(self.paths)}")

    def rules(self) -> str:
        period = f"{_short(self.total)}s infinite"
        lines = []
        for first, last in sorted(self.lives):
            name = f"a{first}-{last}"
            hidden = f"{self.share(last + 1)}%{{visibility:hidden}}" if last < self.count - 1 else ""
            before = "0%{visibility:hidden}" if first else ""
            lines += [f".{name}{{animation:{name} {period} step-end}}",
                      f"@keyframes {name}{{{before}{self.share(first)}%{{visibility:visible}}{hidden}}}"]  # fmt: skip
        for (first, steps), name in self.paths.items():
            stops = []
            for n, (x, y) in enumerate(steps):
                leaves = first + n + 1 - (_MOVE if n < len(steps) - 1 else 0)
                stops.append(f"{self.share(first + n)}%,{self.share(leaves)}%"
                             f"{{transform:translate({_short(x)}px,{_short(y)}px)}}")  # fmt: skip
            lines += [f".{name}{{animation:{name} {period} ease-in-out}}", f"@keyframes {name}{{{''.join(stops)}}}"]
        return "\n".join(lines)


def _style(scene: Scene) -> str:
    levels = sorted({b.level for b in scene.items if isinstance(b, Box) and b.level is not None})
    return f"""svg {{ font-family: "DejaVu Sans", Verdana, system-ui, sans-serif; font-variant-numeric: tabular-nums }}
{_theme(_LIGHT, "diverging", levels)}
@media (prefers-color-scheme: dark) {{
{_theme(_DARK, "diverging-dark", levels)}
}}
.page {{ fill: var(--page) }} .cell {{ stroke: var(--line) }} .empty {{ fill: none }}
.dashed {{ fill: none; stroke: var(--line); stroke-dasharray: 4 4 }}
.strong {{ fill: none; stroke: var(--ink); stroke-width: 3.5; stroke-linejoin: round }}
.tap {{ fill: none; stroke: var(--ink); stroke-width: 1.8 }}
.bar {{ fill: var(--faint) }} .track {{ fill: var(--track) }}
.ink, .bold {{ fill: var(--ink) }} .bold {{ font-weight: 700 }} .faint {{ fill: var(--faint) }}
.middle {{ text-anchor: middle }} .end {{ text-anchor: end }} .gone {{ visibility: hidden }}"""


def _theme(roles: tuple[str, ...], scale: str, levels: Iterable[int]) -> str:
    colours = colour_table(scale)
    lines = ["svg { " + "; ".join(f"--{n}: {c}" for n, c in zip(_NAMES, roles, strict=True)) + " }"]
    for level in levels:
        red, green, blue = (int(v) for v in colours[round((level / LEVELS + 1) / 2 * (len(colours) - 1))])
        lines.append(f".v{level}{{fill:#{red:02x}{green:02x}{blue:02x}}} .t{level}{{fill:{on((red, green, blue))}}}")
    return "\n".join(lines)


def _element(item: Box | Words, scene: Scene, clock: _Clock) -> str:
    alive = clock.life(*item.life)
    if isinstance(item, Words):
        return _text(item, alive)
    width, height = map(_short, item.size)
    kind = item.edge if item.edge != "line" else "cell " + ("empty" if item.level is None else f"v{item.level}")
    if not item.path:
        x, y = map(_short, item.at)
        return f'<rect{_class(kind, alive)} x="{x}" y="{y}" width="{width}" height="{height}"/>'
    # at rest it stands where it is in its last frame, so moves are told from there
    last = np.array(item.path[-1])
    steps = tuple((float(x), float(y)) for x, y in np.array(item.path) - last)
    moves = clock.path(item.life[0], steps) if len(set(steps)) > 1 else ""
    x, y = (_short(float(v)) for v in last)
    shape = f'<rect{_class(kind, moves)} x="{x}" y="{y}" width="{width}" height="{height}"/>'
    return f"<g{_class(alive)}>{shape}</g>" if alive else shape


def _text(words: Words, alive: str) -> str:
    tone = f"t{words.tone}" if isinstance(words.tone, int) else {"strong": "bold"}.get(words.tone, words.tone)
    names = _class(tone, "" if words.anchor == "start" else words.anchor, alive)
    x, y = map(_short, words.at)
    return f'<text{names} x="{x}" y="{y}" font-size="{_short(words.size)}">{escape(words.text)}</text>'


def _class(*names: str) -> str:
    given = " ".join(n for n in names if n)
    return f' class="{given}"' if given else ""


def _short(value: float) -> str:
    """At most three decimals."""
    return f"{value:.3f}".rstrip("0").rstrip(".")
