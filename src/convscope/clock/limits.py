"""The machine's limits: how fast arithmetic and memory can be at most, and what a call costs.

They are the best that PyTorch's own operators reach when they do nothing else: products of matrices and dense
convolutions for arithmetic, one array read and another one written for memory. A layer is called before its work
begins, and cannot work more quickly than its MACs and its bytes allow; how near it comes is its share of the limit. An
algorithm that does with fewer MACs (Winograd's) can pass it.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from convscope.clock import cache
from convscope.clock.timing import measure
from convscope.errors import InputError
from convscope.table import Column, Table

Bound = Literal["arithmetic", "memory", "call"]
WORKING_SETS = tuple(2**k for k in range(18, 29))  # 256 KiB to 256 MiB
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Limits:
    """What this machine can do at most, with its threads.

    `macs` is MACs per second by dtype; `bytes` holds pairs of a working set in bytes and the bytes per second that can
    be read and written in it; `call` is the seconds of the cheapest operator.
    """

    processor: str
    threads: int
    torch_version: str
    macs: Mapping[str, float]
    bytes: tuple[tuple[int, float], ...]
    call: float

    def least_seconds(
        self, *, macs: float, bytes: float, dtype: str | torch.dtype = "float32", working_set: float | None = None
    ) -> float:
        """The least time for a call, and for so many MACs while so many bytes are read and written.

        Units: seconds. `working_set` is the bytes that are in use at a time, if it is not `bytes`.
        Raises: InputError if the dtype was not measured.
        """
        parts = self._parts(macs, bytes, dtype, working_set)
        return parts["call"] + max(parts["arithmetic"], parts["memory"])

    def bound(
        self, *, macs: float, bytes: float, dtype: str | torch.dtype = "float32", working_set: float | None = None
    ) -> Bound:
        """What most of the least time is spent on: the arguments are those of `least_seconds`.

        Raises: InputError if the dtype was not measured.
        """
        parts = self._parts(macs, bytes, dtype, working_set)
        return max(parts, key=parts.__getitem__)

    def bytes_per_second(self, working_set: float) -> float:
        """The rate in a working set; between two measured ones, as if the time grew evenly from one to the other."""
        sizes, rates = zip(*self.bytes, strict=True)
        if not sizes[0] < working_set < sizes[-1]:
            return rates[0] if working_set <= sizes[0] else rates[-1]
        i = bisect_left(sizes, working_set)
        before, after = sizes[i - 1] / rates[i - 1], sizes[i] / rates[i]
        part = (working_set - sizes[i - 1]) / (sizes[i] - sizes[i - 1])
        return working_set / (before + part * (after - before))

    def data(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return asdict(self)

    def table(self) -> Table:
        """The limits as rows for people."""
        rows = [
            {"what": f"arithmetic, {dtype}", "limit": rate / 1e9, "unit": "GMAC/s"} for dtype, rate in self.macs.items()
        ]
        rows += [{"what": f"memory, {_size(n)} in use", "limit": rate / 1e9, "unit": "GB/s"} for n, rate in self.bytes]
        rows.append({"what": "one call of an operator", "limit": self.call * 1e6, "unit": "us"})
        columns = (Column("what", "what"), Column("limit", "at most"), Column("unit", "unit"))
        return Table(
            columns, tuple(rows), title=f"{self.processor}, {self.threads} threads, torch {self.torch_version}"
        )

    def _parts(
        self, macs: float, bytes: float, dtype: str | torch.dtype, working_set: float | None
    ) -> dict[Bound, float]:
        name = str(dtype).removeprefix("torch.")
        if name not in self.macs:
            raise InputError(f"limits: {name} was not measured; use {', '.join(self.macs)}")
        rate = self.bytes_per_second(bytes if working_set is None else working_set)
        return {"arithmetic": macs / self.macs[name], "memory": bytes / rate, "call": self.call}


def limits(*, anew: bool = False) -> Limits:
    """The limits of this machine: measured once (some seconds), then kept in the user's cache folder.

    They are kept by processor, threads and version of torch. `anew` measures again.
    """
    key = cache.here()
    found = None if anew else _restored(cache.load("limits", key))
    if found is None:
        found = _measured(key)
        cache.save("limits", key, found.data())
    return found


def _restored(data: Any) -> Limits | None:
    """What was kept, if all of it is there and is of the kind that it has to be."""
    try:
        found = Limits(
            processor=str(data["processor"]),
            threads=int(data["threads"]),
            torch_version=str(data["torch_version"]),
            macs={str(k): float(v) for k, v in data["macs"].items()},
            bytes=tuple((int(n), float(rate)) for n, rate in data["bytes"]),
            call=float(data["call"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    rates = [*found.macs.values(), *(rate for _, rate in found.bytes), found.call]
    return found if "float32" in found.macs and found.bytes and min(rates) > 0 else None


@torch.inference_mode()
def _measured(key: Mapping[str, Any]) -> Limits:
    one, other = torch.zeros(1), torch.zeros(1)
    call = measure(lambda: torch.neg(one, out=other), repeats=10, at_least=1e-3).least
    macs = {name: max(_rates(_products(dtype))) for name, dtype in _DTYPES.items()}
    with_int8 = macs | {"int8": max(_rates(_int8_products()), default=0.0)}
    return Limits(
        processor=str(key["processor"]),
        threads=int(key["threads"]),
        torch_version=str(key["torch"]),
        macs={name: rate for name, rate in with_int8.items() if rate > 0},
        bytes=_falling([(size, _copying(size, call)) for size in WORKING_SETS]),
        call=call,
    )


Work = tuple[float, Callable[[], object]]  # MACs, and the run that does them


def _rates(work: Iterator[Work]) -> Iterator[float]:
    for macs, run in work:
        yield macs / measure(run, repeats=30, at_most=0.25).least


def _products(dtype: torch.dtype) -> Iterator[Work]:
    """The products that processors do best: matrices, and dense convolutions of the usual sizes."""
    for n in (512, 1024, 2048):
        a, b, c = (torch.ones(n, n, dtype=dtype) for _ in range(3))
        yield n**3, lambda a=a, b=b, c=c: torch.mm(a, b, out=c)
    for channels, size, kernel in ((64, 56, 3), (128, 56, 3), (256, 28, 3), (256, 56, 1), (512, 28, 1)):
        shapes = ((4, channels, size, size), (channels, channels, kernel, kernel))
        x, w = (torch.ones(s, dtype=dtype).contiguous(memory_format=torch.channels_last) for s in shapes)
        yield 4 * channels**2 * kernel**2 * size**2, lambda x=x, w=w: F.conv2d(x, w, padding=w.shape[-1] // 2)


def _int8_products() -> Iterator[Work]:
    """Products of int8 matrices into int32, where this build of torch has them on the processor."""
    product: Callable[..., object] | None = getattr(torch, "_int_mm", None)
    if product is None:
        return
    for n in (1024, 2048):
        a = torch.ones(n, n, dtype=torch.int8)
        try:
            product(a, a)
        except RuntimeError:
            return
        yield n**3, lambda a=a: product(a, a)


def _copying(working_set: int, call: float) -> float:
    """Bytes per second, read and written, of the quickest operator that reads one array and writes another one."""
    x, y = (torch.ones(working_set // 8) for _ in range(2))
    runs = (lambda: y.copy_(x), lambda: torch.neg(x, out=y))
    taken = min(measure(run, repeats=30, at_least=2e-4, at_most=0.1).least for run in runs)
    return working_set / max(taken - call, taken / 2)  # a layer pays for its call apart


def _falling(measured: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """What a larger working set reaches, a smaller one can as well: its own measurement drowned in the call."""
    return tuple((size, max(rate for _, rate in measured[i:])) for i, (size, _) in enumerate(measured))


def _size(n: int) -> str:
    return f"{n >> 20} MiB" if n >= 2**20 else f"{n >> 10} KiB"
