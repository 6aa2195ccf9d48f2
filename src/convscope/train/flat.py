"""Weights that are learnt alike lie in one array, and their gradients in another: a step goes through a few arrays, not
through hundreds. Each weight is a part of its array; what is saved is as if each stood alone."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convscope.layers.fast.stepping import Gradients, serves

ALIGNED = 16  # elements: where weights begin


class Flat:
    """The array that holds these weights from now on, in whatever order their elements lie.

    >>> layer = nn.Linear(2, 3)
    >>> flat = Flat(list(layer.parameters()))
    >>> flat.values.grad = torch.ones_like(flat.values)
    >>> layer.weight.data_ptr() == flat.values.data_ptr(), len(flat.values)
    (True, 32)
    """

    def __init__(self, weights: Sequence[nn.Parameter]) -> None:
        self.weights = list(weights)
        sizes = [-(-w.numel() // ALIGNED) * ALIGNED for w in self.weights]
        self.starts = [0, *itertools.accumulate(sizes)]
        first = self.weights[0]
        with torch.no_grad():
            self.values = nn.Parameter(torch.zeros(self.starts[-1], dtype=first.dtype, device=first.device))
            for weight, part in zip(self.weights, self.parts(self.values.detach()), strict=True):
                weight.data = part.copy_(weight)

    def collect(self) -> None:
        """From now on the gradients of the weights are added up in one array."""
        self.values.grad = torch.zeros_like(self.values)
        for weight, part in zip(self.weights, self.parts(self.values.grad), strict=True):
            weight.grad = part

    def parts(self, whole: Tensor) -> list[Tensor]:
        """Such an array as the weights see it."""
        return [
            whole.as_strided(w.shape, w.stride() if _dense(w) else torch.empty(w.shape).stride(), start)
            for w, start in zip(self.weights, self.starts, strict=False)
        ]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The array of such parts."""
        whole = torch.zeros_like(self.values, requires_grad=False)
        for own, part in zip(self.parts(whole), parts, strict=True):
            own.copy_(part)
        return whole


class FlatOptimizer:
    """An optimiser of PyTorch over flat weights, a group each; its state is told and taken weight by weight.

    Once a step does not reach all weights, it goes on weight by weight: one that a step does not reach stays as it is.
    """

    def __init__(self, kind: type[torch.optim.Optimizer], groups: Sequence[dict[str, Any]], **options: Any) -> None:
        self.flats = [Flat(group["params"]) for group in groups]
        given = [{**group, "params": [flat.values]} for group, flat in zip(groups, self.flats, strict=True)]
        self.inner, self._make = kind(given, **options), functools.partial(kind, **options)
        self.own = all(
            serves(kind, flat.values, group) for flat, group in zip(self.flats, self.inner.param_groups, strict=True)
        )
        self.longest = math.inf  # gradient of the next step, where the kernels take it
        self._weights = [weight for flat in self.flats for weight in flat.weights]
        self.apart, self._reached = False, set[Tensor]()
        watched = () if self.own else self._weights  # elsewhere what was not reached has no gradient
        self._hooks = [weight.register_post_accumulate_grad_hook(self._reached.add) for weight in watched]
        for flat in () if self.own else self.flats:
            flat.collect()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The settings of each group."""
        return self.inner.param_groups

    def zero_grad(self) -> None:
        """All gradients 0, or none."""
        self._reached.clear()
        for flat in self.flats:
            if flat.values.grad is not None:
                flat.values.grad.zero_()
                continue
            for weight in flat.weights:
                weight.grad = None

    def clip(self, longest: float) -> None:
        """Shorten the gradients, all together, to this length, before the next step or in it."""
        if self.own:
            self.longest = longest
        else:
            whole = self._weights if self.apart else [flat.values for flat in self.flats]
            torch.nn.utils.clip_grad_norm_(whole, longest)

    def step(self) -> None:
        """One step."""
        if not self.apart and (left := self._left()):
            self._part(left)
        if not self.own:
            self.inner.step()
            return
        found = [Gradients(flat.weights, flat.starts) for flat in self.flats]
        by = 1.0
        if self.longest < math.inf:
            by, self.longest = shortened(sum(g.squares() for g in found), self.longest), math.inf
        for grads, flat, group in zip(found, self.flats, self.inner.param_groups, strict=True):
            grads.adamw(flat.values, group, self.inner.state[flat.values], by)

    def _left(self) -> list[Tensor]:
        """The weights that this step did not reach."""
        return [w for w in self._weights if (w.grad is None if self.own else w not in self._reached)]

    def _part(self, left: Sequence[Tensor] = ()) -> None:
        """Go on weight by weight, from the state so far; those that are left have no gradient."""
        state, groups = self.state_dict(), zip(self.inner.param_groups, self.flats, strict=True)
        self.inner = self._make([{**group, "params": flat.weights} for group, flat in groups])
        self.inner.load_state_dict(state)
        self.own, self.apart = False, True
        for hook in self._hooks:
            hook.remove()
        for flat in self.flats:
            flat.values.grad = None
        for weight in left:
            weight.grad = None
        if self.longest < math.inf:
            self.clip(self.longest)

    def state_dict(self) -> dict[str, Any]:
        """What `torch.optim` would tell of the weights one by one, and whether they go on so."""
        told, state, number = self.inner.state_dict(), dict[int, Any](), 0
        if self.apart:
            return {**told, "apart": True}
        for at, (flat, group) in enumerate(zip(self.flats, told["param_groups"], strict=True)):
            group["params"] = list(range(number, number + len(flat.weights)))
            number += len(flat.weights)
            own = {name: self._cut(flat, value) for name, value in told["state"].get(at, {}).items()}
            state |= {i: {n: v[k] for n, v in own.items()} for k, i in enumerate(group["params"]) if own}
        return {"state": state, "param_groups": told["param_groups"], "apart": False}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""
        if not self.apart and state.get("apart"):
            self._part()
        if self.apart:
            self.inner.load_state_dict(state)
            return
        states, groups = dict[int, Any](), list[dict[str, Any]]()
        for at, (flat, group) in enumerate(zip(self.flats, state["param_groups"], strict=True)):
            parts = [state["state"][i] for i in group["params"] if i in state["state"]]
            if parts:
                states[at] = {name: self._joined(flat, [p[name] for p in parts]) for name in parts[0]}
            groups.append({**group, "params": [at]})
        self.inner.load_state_dict({"state": states, "param_groups": groups})

    def _cut(self, flat: Flat, value: Any) -> list[Any]:
        if isinstance(value, Tensor) and value.shape == flat.values.shape:
            return flat.parts(value)
        return [value.clone() if isinstance(value, Tensor) else value for _ in flat.weights]

    def _joined(self, flat: Flat, values: list[Any]) -> Any:
        return flat.joined(values) if isinstance(values[0], Tensor) and values[0].dim() else values[0]


def shortened(squares: float, longest: float) -> float:
    """What shortens gradients of this sum of squares to `longest`, as `clip_grad_norm_` does.

    >>> shortened(25.0, 2.5), shortened(25.0, 10.0)
    (0.4999999..., 1.0)
    """
    by = longest / (math.sqrt(squares) + 1e-6)
    return 1.0 if by > 1 else by  # NaN stays NaN


def _dense(weight: Tensor) -> bool:
    """Whether its elements fill one piece of memory, in whatever order."""
    steps = sorted((step, size) for step, size in zip(weight.stride(), weight.shape, strict=True) if size > 1)
    room = 1
    for step, size in steps:
        if step != room:
            return False
        room *= size
    return True
