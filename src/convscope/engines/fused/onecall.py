"""OneCall: a network of our own kernels alone as one call: no Python and no PyTorch between its layers.

Every array lies in one piece of memory, and what two of them need at different times is the same place. Channels are
filled up with zeros to whole vectors. Where a network has an operator that no kernel of ours does, there is none.
"""

import ctypes
import functools
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convscope.clock import cache, compare
from convscope.engines.fused.layers import LAST, Conv
from convscope.engines.fused.steps import Steps
from convscope.layers.fast.compiled import After, Ready, Step, Window, digest
from convscope.layers.fast.operators import there

# As the kernels number them.
_KINDS = (
    "grouped", "pointwise", "winograd", "dense", "largest", "mean", "scaled", "sum", "tiles", "normalised", "enlarged",
    "narrowed", "widened", "cut", "thin", "thin largest", "repeated", "unfolded", "group normalised",
    "padded", "to bytes",
)  # fmt: skip
_FAR = 2**40  # from what is nowhere to the input, from there to the first output, and so on, as the kernels have it
_NOWHERE, _INPUT, _OUTPUT = -_FAR, -2 * _FAR, -3 * _FAR
_PLAIN = After()
_ONE = Window(1, 1, 1, 1, 0, 0, 1, 1)
MOST = 64  # outputs
_LINE = 64  # bytes of a line of the cache
_BEYOND = 16  # values that a thin convolution reads behind its input
_BEHIND = 32  # pixels: kernels in tiles see what is behind the last one
_TILES = (1, 2)  # pictures
_WORTH = 0.05  # of all MACs: with fewer, a part of a network is not worth another way
_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Place:
    """An array: C, H, W of a picture, the channels that it has memory for, and whether PyTorch has it flat, with its
    channels as the last axis, or as a list: H pixels (W is 1) with their channels. Bytes lie in a network
    of bfloat16."""

    number: int
    size: tuple[int, int, int]
    wide: int
    flat: bool = False
    last: bool = False
    listed: bool = False
    bytes: bool = False

    @property
    def values(self) -> int:
        """Of a picture, as those that are no bytes."""
        all_values = self.wide * self.size[1] * self.size[2]
        return -(-all_values // 2) if self.bytes else all_values


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer: which kernel, from which places to which, its tensors (made of `conv`), window, and what is done behind
    it."""

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
    conv: Conv | None = None

    @property
    def in_bytes(self) -> int:
        """Which arrays are bytes, as the kernels have it."""
        return sum(bit for bit, p in ((1, self.x), (2, self.y), (4, self.other)) if p is not None and p.bytes)

    @property
    def added(self) -> int:
        """The array that is added, if what is written may lie where it does; 0 if not, which is the input."""
        other = self.other
        apart = (
            other is not None
            and (other.wide, other.bytes) == (self.y.wide, self.y.bytes)
            and (self.kind == "sum" or other.number != self.x.number)
        )
        return other.number if other is not None and apart and self.kind in ("tiles", "sum") else 0

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
    pictures at a time (0: all, or where each thread has its own, one) through so many layers, the others with all."""

    apart: bool
    least: float = 0
    tile: int = 0
    layers: int = 0


class OneCall:
    """Layers as one call; float32 pictures in channels last, as many as wanted.

    What lies between the layers is bfloat16 if `half`. `rest` makes what the network gives of the pictures and of what
    the layers give; without it, they give that.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        outputs: Sequence[Place],
        *,
        batch: int,
        counts: Mapping[str, int],
        half: bool = False,
        rest: Steps | None = None,
    ) -> None:
        self.layers, self.outputs, self.counts, self.rest = layers, outputs, counts, rest
        self.dtype = torch.bfloat16 if half else torch.float32
        self._plans: dict[tuple[int, How], _Plan] = {}
        self._shapes = [(p.wide,) if p.flat and p.size[1:] == (1, 1) else (*p.size[1:], p.wide) for p in outputs]
        self.batch, self.how = batch, self._quickest(batch)

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        found = self._run(x, self.how)
        return self.rest(x, *found) if self.rest else found

    def _run(self, x: Tensor, how: How) -> list[Tensor]:
        count = x.shape[0]  # three times as quick as len(x)
        given = [torch.empty(count, *shape) for shape in self._shapes]
        threads = torch.get_num_threads()
        if how.apart and how.tile and count % threads:  # no equal shares
            how = how._replace(apart=False)
        shares = 1 if not how.apart else threads if how.tile else count
        plan = self._planned(count // shares, how)
        outputs = plan.pointers(*[g.data_ptr() for g in given])
        rows = threads if how.apart else 1
        memory = plan.spare.pop() if plan.spare else torch.empty(rows, plan.values, dtype=self.dtype)  # another thread
        if how.apart:
            apart = (ctypes.c_long * len(given))(*[g[0].numel() * count // shares for g in given])
            there().pictures(plan.steps, memory, x.unflatten(0, (shares, -1)), outputs, apart)
        else:
            there().network(plan.steps, memory, x, outputs)
        plan.spare.append(memory)
        return [self._shaped(g, p) for g, p in zip(given, self.outputs, strict=True)]

    def ready(self, count: int) -> Callable[[Tensor], Tensor] | None:
        """What runs so many float32 pictures with the least Python around the call: of one output."""
        how = self.how
        if len(self.outputs) > 1 or how.apart or self.rest:
            return None
        plan, shape, spare = self._planned(count, how), (count, *self._shapes[0]), []
        place, run = self.outputs[0], there().one_output
        plain = place.flat and place.size[1:] == (1, 1)

        def call(x: Tensor) -> Tensor:
            x, y = x.contiguous(memory_format=LAST), x.new_empty(shape)
            held = spare.pop() if spare else plan.ready(self.dtype)  # another thread has its own
            run(held[0], x.data_ptr(), y.data_ptr())
            spare.append(held)
            return y if plain else self._shaped(y, place)

        return call

    def key(self) -> list[Any]:
        """What a measurement of it holds for."""
        layers = [
            [
                t.kind,
                t.x.size,
                t.x.wide,
                t.y.size,
                t.y.wide,
                t.window,
                t.after.activation,
                t.other is not None,
                t.in_bytes,
            ]
            for t in self.layers
        ]
        return [str(self.dtype), *layers, *(self.rest.names if self.rest else ())]

    @staticmethod
    def _shaped(given: Tensor, place: Place) -> Tensor:
        if place.flat and place.size[1:] == (1, 1):
            return given if place.wide == place.size[0] else given[:, : place.size[0]]
        if place.listed:
            return given[:, :, 0, : place.size[0]]
        if place.last:
            return given[..., : place.size[0]]
        found = given.permute(0, 3, 1, 2)[:, : place.size[0]]
        return found.flatten(1) if place.flat else found

    def _quickest(self, batch: int) -> How:
        """The quickest way to run a batch of this size, by measurement."""
        ways = [How(False)]
        if batch > 1:
            ways += [How(True), *(How(False, 0, t, n) for n in self._waists() for t in _TILES if t < batch)]
            if batch % (threads := torch.get_num_threads()) == 0 and 1 < threads < batch:
                ways += [How(True, 0, 1, n) for n in self._waists()]
        ways += [How(False, 2**18), How(False, math.inf)]
        x = functools.cache(lambda: self.example(batch))
        runs = {repr(how): lambda how=how: self._run(x(), how) for how in ways}
        name = _chosen("onecall", {"batch": batch, "layers": self.key()}, runs)
        self._plans.clear()  # each holds memory for all that lies between layers
        return next(how for how in ways if repr(how) == name)

    def example(self, batch: int) -> Tensor:
        """Pictures of noise."""
        _, h, w = self.layers[0].x.size
        return torch.randn(batch, self.layers[0].x.wide, h, w).contiguous(memory_format=LAST)

    def _waists(self) -> list[int]:
        """Before how many layers one array alone is there, of each size of maps the last: what comes before them can be
        done with few pictures, whose maps stay in the cache, and what comes behind with all, which share weights."""
        found, end = {}, len(self.layers)
        all_macs = sum(t.macs for t in self.layers)
        for i in range(1, end):
            read, macs = {p.number for p in (*self._read(i), *self.outputs)}, sum(t.macs for t in self.layers[:i])
            kept = {t.y.number: t.y for t in self.layers[:i] if t.y.number in read}
            if len(kept) == 1 and _WORTH * all_macs < macs < (1 - _WORTH) * all_macs:
                found[next(iter(kept.values())).size[1:]] = i
        return [*found.values(), end]

    def _read(self, first: int) -> list[Place]:
        """What layers from that one on read."""
        return [p for t in self.layers[first:] for p in (t.x, t.other) if p is not None]

    def _planned(self, count: int, how: How) -> "_Plan":
        plan = self._plans.get((count, how))
        if plan is None:
            plan = self._plans[count, how] = self._plan(count, how)
        return plan

    def _plan(self, n: int, how: How) -> "_Plan":
        """All steps for n pictures, and what memory they need."""
        layers, tile = self.layers, how.tile or n
        few = min(how.layers or len(layers), len(layers)) if how.tile else 0  # layers of a tile of pictures at a time
        whole = {0, *(p.number for p in (*self._read(few), *self.outputs))}  # arrays of all pictures
        at, rooms, values = self._laid(n, tile, few, whole)
        parts = [(i, first, min(tile, n - first)) for first in range(0, n, tile) for i in range(few)]
        parts += [(i, 0, n) for i in range(few, len(layers))]
        steps, threads = (Step * len(parts))(), 1 if how.apart else torch.get_num_threads()
        for j, (i, first, count) in enumerate(parts):
            here = {p.number: at[p.number] + (first * p.values if p.number in whole else 0) for p in _arrays(layers[i])}
            work = count * max(layers[i].macs, layers[i].y.values)
            steps[j] = _step(layers[i], here, rooms[i], count, threads if work >= how.least else 1)
        return _Plan(steps, values, ctypes.c_void_p * len(self.outputs), [])

    def _laid(self, n: int, tile: int, few: int, whole: Collection[int]) -> tuple[dict[int, int], list[int], int]:
        """Where each array lies, where each layer's room is, and how many values there are in all: an array's place is
        free again behind its last reader."""
        layers, line = self.layers, _LINE // self.dtype.itemsize
        at = {0: _INPUT} | {p.number: _OUTPUT - i * _FAR for i, p in enumerate(self.outputs)}
        last = {p.number: i for i, t in enumerate(layers) for p in _arrays(t)}
        used: dict[int, tuple[int, int]] = {}  # of places in the memory: first value and behind the last one
        rooms, most = [], 1

        def put(place: Place, count: int) -> None:
            if place.number not in at:
                used[place.number] = _free(used, count * place.values, line)
                at[place.number] = used[place.number][0]

        for t in layers[:few]:
            if t.y.number in whole:
                put(t.y, n)
        for i, t in enumerate(layers):
            count, added = tile if i < few else n, t.added
            if added in used and last[added] == i and t.y.number not in at and (i >= few or added not in whole):
                at[t.y.number], used[t.y.number] = at[added], used.pop(added)
            put(t.y, count)
            room = _free(used, count * t.room, line)
            rooms.append(room[0])
            most = max(most, room[1], *(end for _, end in used.values()))
            for number in [k for k in used if last[k] <= i]:
                del used[number]
        return at, rooms, most + _BEHIND * max(t.x.wide for t in layers)


def quickest(calls: Sequence[OneCall]) -> OneCall:
    """The quickest of several for one network, by measurement."""
    if len(calls) == 1:
        return calls[0]
    batch = calls[0].batch
    x = functools.cache(lambda: calls[0].example(batch))
    runs = {str(i): lambda call=call: call(x()) for i, call in enumerate(calls)}
    return calls[int(_chosen("calls", {"batch": batch, "calls": [call.key() for call in calls]}, runs))]


def _chosen(kind: str, facts: Mapping[str, Any], runs: Mapping[str, Callable[[], object]]) -> str:
    """The name of the quickest, as it was measured on this machine."""
    key = {**cache.here(), "kernels": digest(), "ways": [*runs], **facts}
    kept = cache.load(kind, key)
    if not isinstance(kept, str) or kept not in runs:
        times = compare(_promising(runs), rounds=15, at_least=1e-3, at_most=2.0)
        kept = min(times, key=lambda name: times[name].median)
        cache.save(kind, key, kept)
    return kept


def _promising(runs: Mapping[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """Those that take at most half as much again as the quickest; of slow ones, the first alone are tried."""
    took: dict[str, float] = {}
    began = time.perf_counter()
    for name, run in runs.items():
        run()
        took[name] = min(_seconds(run) for _ in range(3))
        if time.perf_counter() - began > _SECONDS:
            break
    return {name: runs[name] for name in took if took[name] <= 1.5 * min(took.values())}


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _arrays(t: Layer) -> list[Place]:
    """All that the layer reads and writes."""
    return [p for p in (t.x, t.y, t.other) if p is not None]


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
    found.kind, found.per, found.bytes, found.threads = _KINDS.index(t.kind), t.per, t.in_bytes, threads
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
