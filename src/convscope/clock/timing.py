"""Time, measured so that it can be compared: several sides take turns in one run, and quartiles say how sure it is.

A machine that others use as well is slower for seconds at a time. Sides that are measured one after the other cannot be
compared there; sides that take turns see the same disturbances. So milliseconds of two runs are two stories, and the
ratio within one run is what to trust.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from convscope.errors import InputError

_MOST_LOOPS = 100_000


@dataclass(frozen=True, slots=True)
class Timing:
    """What a run took each time, in seconds; in the order in which it was measured.

    >>> t = Timing((3.0, 1.0, 2.0, 5.0))
    >>> t.median, t.low, t.high, t.least
    (2.5, 1.75, 3.5, 1.0)
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the times were below."""
        return statistics.median(self.seconds)

    @property
    def low(self) -> float:
        """The first quartile: a quarter of the times were below."""
        return _quartile(self.seconds, 0)

    @property
    def high(self) -> float:
        """The third quartile: a quarter of the times were above."""
        return _quartile(self.seconds, 2)

    @property
    def least(self) -> float:
        """The shortest time: what is left where nothing disturbs."""
        return min(self.seconds)

    def over(self, other: "Timing") -> float:
        """How many times as long as `other` it took: the median over the rounds that both were measured in.

        >>> Timing((2.0, 4.0, 9.0)).over(Timing((1.0, 2.0, 3.0)))
        2.0
        """
        if len(self.seconds) != len(other.seconds):
            return self.median / other.median
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))

    def data(self) -> dict[str, float | int]:
        """Median and quartiles in seconds, and how often it was measured."""
        return {"median": self.median, "low": self.low, "high": self.high, "repeats": len(self.seconds)}


def measure(
    run: Callable[[], object],
    *,
    repeats: int = 20,
    warmup: int = 1,
    at_least: float = 100e-6,
    at_most: float | None = None,
) -> Timing:
    """The time that `run()` takes, measured `repeats` times after `warmup` runs that do not count.

    Units: seconds. What is quicker than `at_least` is run in a loop of that length, and the mean of the loop counts.
    After `at_most` seconds no further repeat begins, but three are always measured.
    Raises: InputError if repeats or warmup is below 1.

    >>> measure(lambda: sum(range(1000)), repeats=3).median > 0
    True
    """
    return compare({"run": run}, rounds=repeats, warmup=warmup, at_least=at_least, at_most=at_most)["run"]


def compare(
    runs: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 20,
    warmup: int = 1,
    at_least: float = 100e-6,
    at_most: float | None = None,
) -> dict[str, Timing]:
    """The times of several runs that take turns: each is run once a round, and every round begins with another one.

    Units: seconds. `warmup` runs of each do not count; what is quicker than `at_least` is run in a loop of that length;
    after `at_most` seconds in all no further round begins, but three are always measured.
    Raises: InputError if rounds or warmup is below 1.

    >>> times = compare({"sum": lambda: sum(range(1000)), "nothing": lambda: None}, rounds=3)
    >>> times["sum"].over(times["nothing"]) > 1
    True
    """
    for name, value in (("rounds", rounds), ("warmup", warmup)):
        if value < 1:
            raise InputError(f"clock: {name} is {value}; use 1 or more")
    loops = {name: _loops(run, warmup, at_least) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs.items())
    began = time.perf_counter()
    for i in range(rounds):
        if i >= 3 and at_most is not None and time.perf_counter() - began > at_most:
            break
        for name, run in order[i % len(order) :] + order[: i % len(order)]:
            seconds[name].append(_once(run, loops[name]))
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def _once(run: Callable[[], object], loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        run()
    if torch.cuda.is_initialized():  # whose work goes on when the call is back
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / loops


def _loops(run: Callable[[], object], warmup: int, at_least: float) -> int:
    """How often the run has to be repeated so that the clock can see it; warms it up on the way."""
    for _ in range(warmup):
        run()
    taken = min(_once(run, 1) for _ in range(2))
    return 1 if taken >= at_least else min(_MOST_LOOPS, int(at_least / max(taken, 1e-9)) + 1)


def _quartile(seconds: tuple[float, ...], which: int) -> float:
    if len(seconds) == 1:
        return seconds[0]
    return statistics.quantiles(seconds, n=4, method="inclusive")[which]
