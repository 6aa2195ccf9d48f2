"""How far work that takes long has come, and whether who asked for it still waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, local
from time import monotonic
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
_THREAD = local()


class Stopped(BaseException):  # no Exception, so that nothing on its way takes it for the network's own
    """Nobody waits for it any more."""


class Steps:
    """One piece of work: `done` of `of` steps, where these are known."""

    def __init__(self) -> None:
        self.begun, self.done, self.of = monotonic(), 0, 0
        self.stopped = False

    def step(self, count: int = 1) -> None:
        """Raises: Stopped, if nobody waits."""
        if self.stopped:
            raise Stopped
        self.done += count


class Board:
    """What runs now in any thread."""

    def __init__(self) -> None:
        self._lock, self._running = Lock(), list[Steps]()

    def run(self, steps: Steps, work: Callable[[], T]) -> T:
        """What the work returns; its thread counts in `steps`.

        Raises: Stopped.
        """
        steps.step(0)
        with self._lock:
            self._running.append(steps)
        _THREAD.steps = steps
        try:
            return work()
        finally:
            _THREAD.steps = None
            with self._lock:
                self._running.remove(steps)

    def told(self) -> dict[str, Any]:
        """Of what runs longest and is counted: how many steps are done, of how many, and the seconds they took."""
        with self._lock:
            counted = [s for s in self._running if s.of]
        if not counted:
            return {"done": 0, "of": 0, "seconds": 0.0}
        first = min(counted, key=lambda s: s.begun)
        return {"done": min(first.done, first.of), "of": first.of, "seconds": monotonic() - first.begun}


@contextmanager
def counting(model: nn.Module, of: int, *, modules: bool = False) -> Iterator[Steps]:
    """Count the pictures that enter a network, or each call of its modules, as steps of this thread's work.

    Once nobody waits for that work, the next step raises Stopped.
    """
    steps: Steps = getattr(_THREAD, "steps", None) or Steps()
    steps.begun, steps.done, steps.of = monotonic(), 0, of
    hooked = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)] if modules else [model]

    def passed(module: nn.Module, args: tuple[Any, ...]) -> None:
        first = args[0] if args else None
        steps.step(len(first) if not modules and isinstance(first, Tensor) and first.ndim else 1)

    hooks = [m.register_forward_pre_hook(passed) for m in hooked]
    try:
        yield steps
    finally:
        for hook in hooks:
            hook.remove()
