"""Steps: a program as a list of calls, operator by operator."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from convscope.engines.fused.program import Program, arguments


class Steps:
    """A program as a list of calls on numbered places: nothing between one operator and the next but the call."""

    def __init__(self, program: Program) -> None:
        nodes = [*program.graph.nodes]
        self.names = [str(n.target) for n in nodes if n.op == "call_function"]
        self._place = {node: i for i, node in enumerate(nodes)}
        self._first: list[Any] = [program.tensors[str(n.target)] if n.op == "get_attr" else None for n in nodes]
        self._inputs = [self._place[n] for n in nodes if n.op == "placeholder"]
        self._outputs = [self._place[n] for n in arguments(nodes[-1])[0]]
        last = {read: node for node in nodes for read in node.all_input_nodes}
        kept = {n for n in nodes if n.op == "get_attr"}
        self._steps = [
            (
                self._call(n),
                self._place[n],
                tuple(self._place[r] for r, end in last.items() if end is n and r not in kept),
            )
            for n in nodes
            if n.op == "call_function"
        ]

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        values = self._first.copy()
        for i, x in zip(self._inputs, inputs, strict=True):
            values[i] = x
        for call, to, done in self._steps:
            values[to] = call(values)
            for i in done:
                values[i] = None
        return [values[i] for i in self._outputs]

    def _call(self, node: fx.Node) -> Any:
        """The node's call, given all values."""
        run: Any = node.target
        at, args = self._place, node.args
        if not node.kwargs and all(isinstance(a, fx.Node) for a in args):
            places = [at[a] for a in args]
            if len(places) == 1:
                return lambda v, i=places[0]: run(v[i])
            return lambda v: run(*[v[i] for i in places])
        if not node.kwargs and not any(isinstance(a, list | tuple) for a in args):
            fixed, reads = list(args), [(i, at[a]) for i, a in enumerate(args) if isinstance(a, fx.Node)]
            return lambda v: run(*_filled(fixed, reads, v))
        return lambda v: _anyhow(run, node, at, v)


def _filled(fixed: list[Any], reads: Sequence[tuple[int, int]], values: Sequence[Any]) -> list[Any]:
    given = fixed.copy()
    for i, place in reads:
        given[i] = values[place]
    return given


def _anyhow(run: Any, node: fx.Node, at: Mapping[fx.Node, int], values: Sequence[Any]) -> Any:
    args, kwargs = map_arg((arguments(node), node.kwargs), lambda n: values[at[n]])
    return run(*args, **kwargs)
