"""Pictures that are not held: each is read when it is asked for, those that come next on a thread beside.

Shape suffixes: N pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor

if TYPE_CHECKING:
    from convscope.data.samples import Sample

MEMORY = 4.0  # GB of pictures that are held, unless someone says otherwise
FEW = 1000  # pictures that tell mean and deviation of a set that is not held
AHEAD = 64  # pictures that are read before they are asked for
BLOCK, WINDOW = 256, 8  # neighbours that are read together; how many such blocks are mixed


class Unread(Sequence["Sample"]):
    """Samples that `read` makes, one at a time, of one `shape` (C, H, W); `in_order` of the files, such as shards.

    >>> squares = Unread(lambda at: at * at, 10, shape=(1, 1, 1))
    >>> squares.expect([3, 5])
    >>> squares[3], squares[5], squares[-1], len(squares.only([1, 2]))
    (9, 25, 81, 2)
    """

    def __init__(
        self, read: Callable[[int], Sample], count: int, *, shape: tuple[int, ...], in_order: bool = False
    ) -> None:
        self.read, self.number, self.shape, self.in_order = read, count, shape, in_order
        self._coming: Iterator[int] = iter(())
        self._ahead: deque[tuple[int, Future[Sample]]] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Unread: ...
    def __getitem__(self, index: int | slice) -> Sample | Unread:
        if isinstance(index, slice):
            return self.only(range(self.number)[index])
        at = range(self.number)[index]
        if not self._ahead or self._ahead[0][0] != at:
            return self.read(at)
        _, reading = self._ahead.popleft()
        self._fill()
        return reading.result()

    def expect(self, indices: Iterable[int]) -> None:
        """What will be asked for next, in that order; what was expected before is forgotten."""
        for _, reading in self._ahead:
            reading.cancel()
        self._ahead.clear()
        self._coming = iter(indices)
        self._fill()

    def then(self, change: Callable[[Sample], Sample]) -> Unread:
        """The same, each changed when it is read."""
        return Unread(lambda at: change(self.read(at)), self.number, shape=self.shape, in_order=self.in_order)

    def only(self, indices: Sequence[int]) -> Unread:
        """Some of them."""
        return Unread(lambda at: self.read(indices[at]), len(indices), shape=self.shape)

    def few(self) -> Unread:
        """A thousand of them at most, from the first to the last."""
        return self.only(range(0, self.number, -(-self.number // FEW)))

    def _fill(self) -> None:
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="pictures")
        while len(self._ahead) < AHEAD and (at := next(self._coming, None)) is not None:
            self._ahead.append((at, self._thread.submit(self.read, at)))


class Pixels:
    """The pictures of `Unread` samples where a tensor uint8 [N, C, H, W] is indexed."""

    def __init__(self, samples: Unread) -> None:
        self.samples, self.ndim, self.shape = samples, 4, (len(samples), *samples.shape)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | Tensor) -> Tensor:
        if isinstance(index, int):
            return self.samples[index].image.as_subclass(Tensor)
        return torch.stack([self[at] for at in index.tolist()])

    def is_floating_point(self) -> bool:
        """Never: files hold bytes."""
        return False


def gigabytes(count: int, shape: Sequence[int], *, masks: bool = False) -> float:
    """What so many pictures of a shape (C, H, W) take in memory, a byte a value, with their masks if need be.

    >>> gigabytes(10_000, (3, 128, 128))
    0.49152
    """
    channels, height, width = shape
    return count * (channels + masks) * height * width / 1e9


def unread(data: object) -> Unread | None:
    """The samples of a set, if they are read when they are asked for; None if they are held."""
    samples = getattr(data, "samples", None) or getattr(getattr(data, "images", None), "samples", None)
    return samples if isinstance(samples, Unread) else None


def expect(data: object, indices: Tensor) -> None:
    """Tell a set which pictures will be asked for next; one that is held needs no telling."""
    if (samples := unread(data)) is not None:
        samples.expect(indices.tolist())
