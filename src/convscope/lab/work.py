"""Pool: a few threads that compute, and a queue that says no when it is full."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
WORKERS, QUEUE = 2, 256


class BusyError(Exception):
    """The queue is full: the answer is 503, and when to ask again."""


class Pool:
    """Runs functions in threads; more than `queue` of them, running or waiting, are refused."""

    def __init__(self, *, workers: int = WORKERS, queue: int = QUEUE) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="lab")
        self._queue, self._held = queue, 0

    async def run(self, function: Callable[[], T]) -> T:
        """What the function returns.

        Raises: BusyError beyond the queue; whatever the function raises.
        """
        if self._held >= self._queue:
            raise BusyError
        self._held += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)
        finally:
            self._held -= 1

    def close(self) -> None:
        """Let what runs end, and forget what waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)
