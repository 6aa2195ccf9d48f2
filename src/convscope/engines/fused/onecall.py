"""OneCall: a network of our own kernels alone as one call: no Python and no PyTorch between its layers.

Every array lies in one piece of memory, and what two of them need at different times is the same place. Channels are
filled up with zeros to whole vectors. Where a network has an operator that no kernel of ours does, there is none.
"""

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convscope.clock import cache, compare
from convscope.engines.fused.layers import LAST
from convscope.layers.fast.compiled import After, Ready, Step, Window, digest
from convscope.layers.fast.operators import there

# As the kernels number them.
_KINDS = (
    "grouped", "pointwise", "winograd", "dense", "largest", "mean", "scaled", "sum", "tiles", "normalised", "enlarged",
    "narrowed", "widened", "cut", "thin", "thin largest", "repeated", "unfolded",
)  # fmt: skip
_NOWHERE, _INPUT = -(10**6), -1
_PLAIN = After()
_ONE = Window(1, 1, 1, 1, 0, 0, 1, 1)
MOST = 64  # outputs
_LINE = 64  # bytes of a line of the cache
_BEYOND = 16  # values that a thin convolution reads behind its input
_TILES = 32  # pixels: kernels in tiles see what is behind the last one


@dataclass(frozen=True, slots=True)
class Place:
    """An array: C, H, W of a picture, the channels that it has memory for, and whether PyTorch has it flat, or with its
    channels as the last axis."""

    number: int
    size: tuple[int, int, int]
    wide: int
    flat: bool = False
    last: bool = False

    @property
    def values(self) -> int:
        """Of a picture."""
        return self.wide * self.size[1] * self.size[2]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer: which kernel, from which places to which, its tensors, window, and what is done behind it."""

    kind: str
    x: Place
    y: Place
    other: Place | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    window: Window = _ONE
    per: int = 1
    after: After = _PLAIN
    macs: int = 0

    @property
    def room(self) -> int:
        """Values of the input with its border, where the kernel wants one."""
        _, h, w = self.x.size
        k, thin = self.window, self.kind.startswith("thin")
        if not thin and (self.kind != "dense" or not (k.ph or k.pw)):
            return 0
        return self.x.wide * (h + 2 * k.ph) * (w + 2 * k.pw) + (thin and _BEYOND)


class How(NamedTuple):
    """How a batch is run: each thread its own pictures, or all threads on layers of at least so many MACs; so many
    pictures at a time (0: all)."""

    apart: bool
    least: float = 0
    tile: int = 0


class OneCall:
    """Layers as one call; float32 pictures in channels last, as many as wanted.

    What lies between the layers is bfloat16 if `half`.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        outputs: Sequence[Place],
        *,
        batch: int,
        counts: Mapping[str, int],
        half: bool = False,
    ) -> None:
        self.layers, self.outputs, self.counts = layers, outputs, counts
        self.dtype = torch.bfloat16 if half else torch.float32
        self._plans: dict[tuple[int, How], _Plan] = {}
        self._shapes = [(p.wide,) if p.flat and p.size[1:] == (1, 1) else (*p.size[1:], p.wide) for p in outputs]
        self.how = self._quickest(batch)

    def __call__(self, x: Tensor) -> list[Tensor]:
        return self._run(x, self.how)

    def _run(self, x: Tensor, how: How) -> list[Tensor]:
        count = x.shape[0]  # three times as quick as len(x)
        given = [torch.empty(count, *shape) for shape in self._shapes]
        step = how.tile or count
        if how.apart or step >= count:
            self._part(x, given, how)
        else:
            for first in range(0, count, step):
                self._part(x[first : first + step], [g[first : first + step] for g in given], how)
        return [self._shaped(g, p) for g, p in zip(given, self.outputs, strict=True)]

    def _part(self, x: Tensor, given: Sequence[Tensor], how: How) -> None:
        plan = self._planned(x.shape[0], how)
        outputs = plan.pointers(*[g.data_ptr() for g in given])
        if how.apart:
            memory = torch.empty(torch.get_num_threads(), plan.values, dtype=self.dtype)
            apart = (ctypes.c_long * len(given))(*[g[0].numel() for g in given])
            there().pictures(plan.steps, memory, x, outputs, apart)
        else:
            memory = plan.spare.pop() if plan.spare else torch.empty(plan.values, dtype=self.dtype)  # another thread
            there().network(plan.steps, memory, x, outputs)
            plan.spare.append(memory)

    def ready(self, count: int) -> Callable[[Tensor], Tensor] | None:
        """What runs so many float32 pictures in channels last with the least Python around the call: of one output."""
        how = self.how
        if len(self.outputs) > 1 or how.apart or 0 < how.tile < count:
            return None
        plan, shape, spare = self._planned(count, how), (count, *self._shapes[0]), []
        place, run = self.outputs[0], there().one_output
        plain = place.flat and place.size[1:] == (1, 1)

        def call(x: Tensor) -> Tensor:
            y = x.new_empty(shape)
            held = spare.pop() if spare else plan.ready(self.dtype)  # another thread has its own
            run(held[0], x.data_ptr(), y.data_ptr())
            spare.append(held)
            return y if plain else self._shaped(y, place)

        return call

    def key(self) -> list[Any]:
        """What a measurement of it holds for."""
        layers = [[t.kind, t.x.size, t.y.size, t.window, t.after.activation, t.other is not None] for t in self.layers]
        return [str(self.dtype), *layers]

    @staticmethod
    def _shaped(given: Tensor, place: Place) -> Tensor:
        if place.flat and place.size[1:] == (1, 1):
            return given if place.wide == place.size[0] else given[:, : place.size[0]]
        if place.last:
            return given[..., : place.size[0]]
        found = given.permute(0, 3, 1, 2)[:, : place.size[0]]
        return found.flatten(1) if place.flat else found

    def _quickest(self, batch: int) -> How:
        """The quickest way to run a batch of this size, by measurement."""
        ways = [How(False), How(False, 2**18), How(False, math.inf)]
        if batch > 1:
            ways += [How(True), *(How(False, 0, tile) for tile in (1, 4) if tile < batch)]
        key = {**cache.here(), "kernels": digest(), "batch": batch, "layers": self.key()}
        kept = cache.load("onecall", key)
        names = list(map(repr, ways))
        if kept not in names:
            _, h, w = self.layers[0].x.size
            x = torch.randn(batch, self.layers[0].x.wide, h, w).contiguous(memory_format=LAST)
            runs = {repr(how): lambda how=how: self._run(x, how) for how in ways}
            times = compare(runs, rounds=15, at_least=1e-3, at_most=2.0)
            kept = min(times, key=lambda name: times[name].median)
            cache.save("onecall", key, kept)
        return ways[names.index(kept)]

    def _planned(self, count: int, how: How) -> "_Plan":
        plan = self._plans.get((count, how))
        if plan is None:
            plan = self._plans[count, how] = self._plan(1 if how.apart else count, how)
        return plan

    def _plan(self, n: int, how: How) -> "_Plan":
        """Where every array lies, for n pictures: an array's place is free again behind its last reader."""
        layers, outputs, line = self.layers, self.outputs, _LINE // self.dtype.itemsize
        last = {p.number: i for i, t in enumerate(layers) for p in (t.x, t.other) if p is not None}
        at: dict[int, int] = {0: _INPUT} | {p.number: -2 - i for i, p in enumerate(outputs)}
        used: dict[int, tuple[int, int]] = {}  # of places in the memory: first value and behind the last one
        steps, most, threads = (Step * len(layers))(), 0, torch.get_num_threads()
        for i, t in enumerate(layers):
            if t.y.number not in at:
                used[t.y.number] = _free(used, n * t.y.values, line)
                at[t.y.number] = used[t.y.number][0]
            room = _free(used, n * t.room, line)
            most = max(most, room[1], *(end for _, end in used.values()), 1)
            work = n * max(t.macs, t.y.values)
            steps[i] = _step(t, at, room[0], n, threads if work >= how.least else 1)
            for number in [k for k in used if last.get(k, i) <= i]:
                del used[number]
        behind = _TILES * max(t.x.wide for t in layers)
        return _Plan(steps, most + behind, ctypes.c_void_p * len(outputs), [])


class _Plan(NamedTuple):
    steps: Any
    values: int
    pointers: Any  # the kind of array that holds where the outputs are
    spare: list[Tensor]  # memory that nobody has at the moment

    def ready(self, dtype: torch.dtype) -> tuple[int, Ready, Tensor]:
        """The address of a call in memory of its own, and both, which have to be kept."""
        memory = torch.empty(self.values, dtype=dtype)
        call = Ready(ctypes.addressof(self.steps), memory.data_ptr(), len(self.steps), dtype == torch.bfloat16)
        return ctypes.addressof(call), call, memory


def _free(used: Mapping[int, tuple[int, int]], values: int, line: int) -> tuple[int, int]:
    """The first gap that is wide enough, of whole lines."""
    size, start = -(-values // line) * line, 0
    for first, end in sorted(used.values()):
        if first - start >= size:
            break
        start = max(start, end)
    return start, start + size


def _step(t: Layer, at: Mapping[int, int], room: int, n: int, threads: int) -> Step:
    found = Step()
    found.kind, found.per, found.threads = _KINDS.index(t.kind), t.per, threads
    found.x, found.y, found.room = at[t.x.number], at[t.y.number], room
    found.other = _NOWHERE if t.other is None else at[t.other.number]
    found.w = None if t.weight is None else t.weight.data_ptr()
    found.bias = None if t.bias is None else t.bias.data_ptr()
    (_, h, w), (_, out_h, out_w) = t.x.size, t.y.size
    for name, value in zip(
        ("n", "h", "w", "c", "out_h", "out_w", "out_c"), (n, h, w, t.x.wide, out_h, out_w, t.y.wide), strict=True
    ):
        setattr(found.s, name, value)
    for name, value in t.window._asdict().items():
        setattr(found.k, name, value)
    found.after.low, found.after.high, found.after.activation = t.after.low, t.after.high, t.after.activation
    return found
