"""Pool: a few threads that compute. Who waits for a value goes before what takes long, and no queue grows long.

One thread never takes what takes long, so that a click does not wait for a network to run, a picture to be decoded or a
measurement to end. Threads take turns at Python's lock; `serve` makes the turns short.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from enum import IntEnum
from threading import Condition, Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Rank(IntEnum):
    """What goes first; `COSTLY` is what runs a network, decodes or measures."""

    CLICK = 0
    PAGE = 1
    COSTLY = 2


LIMITS = {Rank.CLICK: 256, Rank.PAGE: 32, Rank.COSTLY: 8}  # of each, running or waiting: together well under a second
THREADS = (tuple(Rank), (Rank.CLICK, Rank.PAGE))  # what each takes


class BusyError(Exception):
    """The queue is full: the answer is 503, and when to ask again."""


class Pool:
    """Runs functions in threads, the lowest rank first; of each rank no more than its limit, running or waiting."""

    def __init__(self, *, threads: Sequence[Sequence[Rank]] = THREADS, limits: Mapping[Rank, int] = LIMITS) -> None:
        self._limits, self._held = limits, Counter[Rank]()
        self._waiting: dict[Rank, deque[tuple[Future[Any], Callable[[], Any]]]] = {rank: deque() for rank in Rank}
        self._news, self._closed = Condition(), False
        for ranks in threads:
            Thread(target=self._work, args=(sorted(ranks),), name="lab", daemon=True).start()

    async def run(self, function: Callable[[], T], rank: Rank = Rank.PAGE) -> T:
        """What the function returns.

        Raises: BusyError beyond the limit; whatever the function raises.
        """
        if self._held[rank] >= self._limits[rank]:
            raise BusyError
        future: Future[T] = Future()
        self._held[rank] += 1
        try:
            with self._news:
                self._waiting[rank].append((future, function))
                self._news.notify_all()
            return await asyncio.wrap_future(future)
        finally:
            self._held[rank] -= 1

    def close(self) -> None:
        """Let what runs end, and forget what waits."""
        with self._news:
            self._closed = True
            left = [future for queue in self._waiting.values() for future, _ in queue]
            self._news.notify_all()
        for future in left:
            future.cancel()

    def _work(self, ranks: Sequence[Rank]) -> None:
        while (found := self._next(ranks)) is not None:
            future, function = found
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

    def _next(self, ranks: Sequence[Rank]) -> tuple[Future[Any], Callable[[], Any]] | None:
        """The next to run, waited for; None once the pool is closed."""
        with self._news:
            while not self._closed:
                for rank in ranks:
                    if self._waiting[rank]:
                        return self._waiting[rank].popleft()
                self._news.wait()
        return None
