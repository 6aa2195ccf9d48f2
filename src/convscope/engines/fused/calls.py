"""A program in one call, with as many channels as are quickest: `one_call`."""

from collections.abc import Mapping
from contextlib import suppress

from convscope.engines.fused.building import Builder, Unknown
from convscope.engines.fused.fusing import OWN, Shapes
from convscope.engines.fused.onecall import OneCall, quickest
from convscope.engines.fused.program import Program
from convscope.engines.fused.steps import Steps
from convscope.layers.fast.operators import there

_FULL = 32  # channels of a tile
_WORTH = 0.05  # of all MACs: less is not worth another way


def one_call(
    program: Program, shapes: Shapes, *, ways: Mapping[str, str] = OWN, half: bool = False
) -> "OneCall | None":
    """The program (without normalisations) in one call, if our own kernels do all its layers with weights; what stands
    behind them PyTorch does. In bfloat16 if `half`."""
    found = calls(program, shapes, ways=ways, half=half)
    return quickest(found) if found else None


def calls(program: Program, shapes: Shapes, *, ways: Mapping[str, str], half: bool) -> list[OneCall]:
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
            found.append(OneCall(builder.layers, given, batch=batch, counts=builder.counts, half=half, rest=rest))
            other = sum(t.macs for t in builder.layers if t.y.wide % _FULL)
            if half or not there().tiles or other < _WORTH * sum(t.macs for t in builder.layers):
                break
    return found
