"""Where the values of a network in one call lie, and the layers between them: `Placing`, which the others build on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx

from convscope.engines.fused.fusing import Shapes
from convscope.engines.fused.layers import Activation
from convscope.engines.fused.onecall import Layer, Place
from convscope.engines.fused.program import Program, arguments
from convscope.layers.fast.compiled import After


class Unknown(Exception):  # noqa: N818 - it ends a search, and nobody sees it
    """No kernel of ours does this."""


@dataclass(slots=True)
class Placing:
    program: Program
    shapes: Shapes
    ways: Mapping[str, str]
    half: bool
    lanes: int  # channels are a multiple of it,
    few: int  # or just so many
    places: dict[fx.Node, Place] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    number: int = 0

    def _same(self, node: fx.Node) -> None:
        self.places[node] = self._any(arguments(node)[0])

    def _any(self, node: Any) -> Place:
        if node not in self.places:
            raise Unknown(str(node))
        return self.places[node]

    def _at(self, node: Any, *, last: bool = False) -> Place:
        """Where the node's values are, whose channels are the last axis or not."""
        found = self._any(node)
        if found.last is not last:
            raise Unknown("channels that are another axis")
        return found

    def _new(self, node: fx.Node, *, last: bool = False) -> Place:
        """A place for what the node gives."""
        shape = self.shapes.wanted[node]
        if len(shape) not in (2, 4) or self.shapes.another[node][1:] != shape[1:]:
            raise Unknown(str(node.target))
        c, h, w = (shape[3], *shape[1:3]) if last else (shape[1], *(shape[2:] or (1, 1)))
        wide = self.few if c <= self.few else -(-c // self.lanes) * self.lanes
        self.places[node] = self._next(Place(0, (c, h, w), wide, len(shape) == 2, last))
        return self.places[node]

    def _next(self, like: Place) -> Place:
        self.number += 1
        return replace(like, number=self.number)

    def _put(self, layer: Layer, name: str = "") -> None:
        self.layers.append(layer)
        if name:
            self.counts[name] = self.counts.get(name, 0) + 1

    def _fill(self, node: fx.Node) -> int:
        """The number of channels that is filled up: where the network ends there are no more than needed."""
        return 4 if all(reader.op == "output" for reader in node.users) else self.lanes


def after_of(activation: Activation) -> After:
    own = activation.own()
    if own is None:
        raise Unknown(activation.name)
    return After(None, None, *own)
