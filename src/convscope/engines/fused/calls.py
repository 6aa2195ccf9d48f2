"""A program in one call, with as many channels as are quickest: `one_call`."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

from convscope.engines.fused.building import Builder, Unknown
from convscope.engines.fused.eight import Eight
from convscope.engines.fused.fusing import OWN, Shapes
from convscope.engines.fused.onecall import Layer, OneCall, Place, quickest
from convscope.engines.fused.program import Program
from convscope.engines.fused.steps import Steps
from convscope.layers.fast.operators import there

_FULL = 32  # channels of a tile
TILES, BYTES = "in tiles", "in tiles of bytes"
_WORTH = 0.05  # of all MACs: less is not worth another way


def one_call(
    program: Program,
    shapes: Shapes,
    *,
    ways: Mapping[str, str] = OWN,
    half: bool = False,
    peaks: Mapping[str, float] | None = None,
) -> "OneCall | None":
    """The program (without normalisations) in one call, if our own kernels do all its layers with weights; what stands
    behind them PyTorch does. In bfloat16 if `half`, and then in bytes where `peaks` tells how far a node reaches."""
    found = calls(program, shapes, ways=ways, half=half, peaks=peaks or {})
    return quickest(found) if found else None


def calls(
    program: Program, shapes: Shapes, *, ways: Mapping[str, str], half: bool, peaks: Mapping[str, float]
) -> list[OneCall]:
    """The same with channels filled up to vectors, and to tiles, which serve more layers, where that differs; in
    bfloat16 the first of the two that can be had."""
    nodes = [*program.graph.nodes]
    source, vector = next(n for n in nodes if n.op == "placeholder"), there().panel // 2
    found: list[OneCall] = []
    for lanes, few in ((_FULL, _FULL // 2), (_FULL, _FULL)) if half else ((vector, vector), (_FULL, _FULL)):
        builder = Builder(program, shapes, ways, half, lanes, few)
        with suppress(Unknown):
            given, batch = builder.build(nodes), shapes.wanted[source][0]
            rest = Steps(program.behind(builder.given)) if builder.given else None
            layers, counts = _in_bytes(builder, given, peaks) if peaks else (builder.layers, builder.counts)
            found.append(OneCall(layers, given, batch=batch, counts=counts, half=half, rest=rest))
            other = sum(t.macs for t in builder.layers if t.y.wide % _FULL)
            if half or not there().tiles or other < _WORTH * sum(t.macs for t in builder.layers):
                break
    return found


def _in_bytes(
    builder: Builder, given: Sequence[Place], peaks: Mapping[str, float]
) -> tuple[list[Layer], dict[str, int]]:
    known = {place.number: peaks[node.name] for node, place in builder.places.items() if node.name in peaks}
    layers = Eight(builder.layers, given, known).layers()
    count = sum(t.kind == "tiles" and t.x.bytes for t in layers)
    return layers, builder.counts | {TILES: builder.counts.get(TILES, 0) - count, BYTES: count}
