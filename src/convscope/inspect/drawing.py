"""draw(): boxes and arrows in layers, as an SVG that needs nothing else.

Layers are longest paths from the inputs; inside a layer, boxes are ordered by where their neighbours stand
(Sugiyama, Tagawa & Toda 1981), and a long arrow passes each layer through a place of its own.
"""

from collections import defaultdict
from html import escape

from convscope.inspect.flow import Box, Flow
from convscope.table import cell, short

WIDTH, HEIGHT, GAP_X, GAP_Y, LANE, MARGIN = 208, 44, 24, 30, 26, 20
SWEEPS = 12

STYLE = """
svg.flow{--ink:#1c2430;--soft:#5b6675;--line:#9aa5b4;--edge:#d5dbe3;--other:#f4f6f8;--input:#ffffff;
--convolution:#dcebfa;--product:#fde8cf;--pooling:#dff2e1;--block:#ece6f8;--bar:#2f6fb3;background:#fff}
@media(prefers-color-scheme:dark){svg.flow{--ink:#e8edf3;--soft:#a3adba;--line:#6d7887;--edge:#3a4452;--other:#222a34;
--input:#161c24;--convolution:#1d3a57;--product:#553c1c;--pooling:#1f4427;--block:#372f52;--bar:#6fb1f0;background:#12171e}}
svg.flow text{font:12px system-ui,sans-serif;fill:var(--ink)}
svg.flow .soft{font-size:11px;fill:var(--soft);font-variant-numeric:tabular-nums}
svg.flow path{fill:none;stroke:var(--line);stroke-width:1.4}
svg.flow rect{stroke:var(--edge)}
svg.flow .bar{fill:var(--bar);stroke:none}
svg.flow marker path{fill:var(--line);stroke:none}
"""


def draw(flow: Flow, *, title: str = "") -> str:
    """The SVG text: in each box its name, output shape and MACs, and a bar for its share of all MACs."""
    layers, links = _layers(flow)
    _order(layers, links)
    x = _places(layers, links, len(flow.boxes))
    y = {node: row * (HEIGHT + GAP_Y) for row, layer in enumerate(layers) for node in layer}
    left = min((x[n] - _wide(n, flow) / 2 for n in x), default=0) - MARGIN
    width = max((x[n] + _wide(n, flow) / 2 for n in x), default=0) + MARGIN - left
    height = len(layers) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    total = sum(box.macs for box in flow.boxes)
    parts = [_path(chain, x, y) for chain in _chains(flow, links)]
    parts += [_drawn(box, x[i] - WIDTH / 2, y[i], total) for i, box in enumerate(flow.boxes)]
    name = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<svg class="flow" xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{left:.1f} {-MARGIN} {width:.1f} {height:.1f}">{name}<style>{STYLE}</style>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z"/></marker></defs>{"".join(parts)}</svg>'
    )


def _layers(flow: Flow) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Nodes of each layer, and links between layers: numbers from len(boxes) on are bends of long arrows."""
    level = [0] * len(flow.boxes)
    for a, b in sorted(flow.arrows, key=lambda arrow: arrow[1]):  # arrows go forwards, so a's level is final
        level[b] = max(level[b], level[a] + 1)
    layers: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for node, row in enumerate(level):
        layers[row].append(node)
    links, count = [], len(flow.boxes)
    for a, b in flow.arrows:
        before = a
        for row in range(level[a] + 1, level[b]):
            layers[row].append(count)
            links.append((before, count))
            before, count = count, count + 1
        links.append((before, b))
    return layers, links


def _order(layers: list[list[int]], links: list[tuple[int, int]]) -> None:
    """Order each layer by the mean place of its neighbours above, then below, and so on."""
    above, below = _neighbours(links)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for layer in layers[1:] if down else layers[-2::-1]:
            place = {n: k / max(1, len(row) - 1) for row in layers for k, n in enumerate(row)}
            near = above if down else below
            layer.sort(key=lambda n: _mean([place[m] for m in near[n]], place[n]))


def _places(layers: list[list[int]], links: list[tuple[int, int]], boxes: int) -> dict[int, float]:
    """Centres along x: each near the mean of its neighbours, none over another."""
    above, below = _neighbours(links)
    x: dict[int, float] = {}
    for layer in layers:
        _spread(layer, dict.fromkeys(layer, 0.0), x, boxes)
    for sweep in range(SWEEPS):
        near = (above, below)[sweep % 2]
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = {n: _mean([x[m] for m in near[n]], x[n]) for n in layer}
            _spread(layer, wanted, x, boxes)
    return x


def _spread(layer: list[int], wanted: dict[int, float], x: dict[int, float], boxes: int) -> None:
    """Place a layer's nodes where they want to be, pushed apart to both sides alike."""
    half = [WIDTH / 2 if n < boxes else LANE / 2 for n in layer]
    rightwards, leftwards = [wanted[n] for n in layer], [wanted[n] for n in layer]
    for k in range(1, len(layer)):
        rightwards[k] = max(rightwards[k], rightwards[k - 1] + half[k - 1] + half[k] + GAP_X)
    for k in range(len(layer) - 2, -1, -1):
        leftwards[k] = min(leftwards[k], leftwards[k + 1] - half[k + 1] - half[k] - GAP_X)
    for node, a, b in zip(layer, rightwards, leftwards, strict=True):
        x[node] = (a + b) / 2


def _neighbours(links: list[tuple[int, int]]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    return above, below


def _chains(flow: Flow, links: list[tuple[int, int]]) -> list[list[int]]:
    """Each arrow as the nodes that it passes."""
    chains, rest = [], iter(links)
    for _ in flow.arrows:
        chain = list(next(rest))
        while chain[-1] >= len(flow.boxes):
            chain.append(next(rest)[1])
        chains.append(chain)
    return chains


def _path(chain: list[int], x: dict[int, float], y: dict[int, int]) -> str:
    """From the bottom of the first box to the top of the last, upright through each bend."""
    at, down = x[chain[0]], float(y[chain[0]] + HEIGHT)
    text = f"M{at:.1f} {down:.1f}"
    for node in chain[1:]:
        to, top = x[node], y[node]
        middle = (down + top) / 2
        text += f"C{at:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {top:.1f}"
        if node != chain[-1]:
            text += f"L{to:.1f} {top + HEIGHT:.1f}"
        at, down = to, float(top + HEIGHT)
    return f'<path d="{text}" marker-end="url(#tip)"/>'


def _drawn(box: Box, left: float, top: int, total: int) -> str:
    macs = f" · {short(box.macs)} MACs" if box.macs else ""
    share = box.macs / total if total else 0
    room = 30 - len(box.op)
    name = escape(box.name if len(box.name) <= room else f"…{box.name[1 - room :]}")
    operator = f'<tspan class="soft"> {escape(box.op)}</tspan>' if box.op and box.name else escape(box.op)
    bar = f'<rect class="bar" x="{left:.1f}" y="{top + HEIGHT - 3}" width="{WIDTH * share:.1f}" height="3"/>'
    tip = f"{box.name or box.op}: {cell(box.shape)}, {box.params:,} parameters, {box.macs:,} MACs ({100 * share:.1f} %)"
    return (
        f'<g><title>{escape(tip)}</title><rect x="{left:.1f}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
        f'fill="var(--{box.kind})"/>{bar if share > 0.002 else ""}'
        f'<text x="{left + WIDTH / 2:.1f}" y="{top + 18}" text-anchor="middle">{name}{operator}</text>'
        f'<text class="soft" x="{left + WIDTH / 2:.1f}" y="{top + 33}" text-anchor="middle">'
        f"{cell(box.shape)}{macs}</text></g>"
    )


def _wide(node: int, flow: Flow) -> int:
    return WIDTH if node < len(flow.boxes) else LANE


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
