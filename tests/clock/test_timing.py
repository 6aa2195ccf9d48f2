"""Timing: its statistics against numpy, and the turns that sides take, with a clock that the test moves."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convscope.clock import Timing, compare, measure
from convscope.errors import InputError

SECONDS = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30).map(tuple)


class Clock:
    """A clock that stands still until something takes time; it notes what ran."""

    def __init__(self) -> None:
        self.now, self.ran = 0.0, []

    def takes(self, name: str, *seconds: float):
        left = list(seconds)

        def run() -> None:
            self.ran.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


@given(SECONDS)
def test_median_and_quartiles_are_numpys(seconds):
    t = Timing(seconds)
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    assert (t.low, t.median, t.high) == pytest.approx((low, median, high))
    assert t.least == min(seconds)
    assert t.data() == {"median": t.median, "low": t.low, "high": t.high, "repeats": len(seconds)}


@given(SECONDS, st.floats(0.1, 10))
def test_the_ratio_is_taken_round_by_round_so_that_a_slow_spell_does_not_count(seconds, ratio):
    slower = Timing(tuple(ratio * s for s in seconds))
    assert slower.over(Timing(seconds)) == pytest.approx(ratio)


def test_the_ratio_of_unequal_numbers_is_that_of_the_medians():
    assert Timing((2.0, 4.0)).over(Timing((1.0,))) == 3.0


def test_sides_take_turns_and_every_round_begins_with_another(clock):
    runs = {name: clock.takes(name, 1.0) for name in "abc"}
    compare(runs, rounds=3)
    assert "".join(clock.ran[-9:]) == "abcbcacab"


def test_what_the_warm_up_takes_does_not_count(clock):
    assert measure(clock.takes("a", 100.0, 9.0, 9.0, 1.0, 2.0, 3.0), repeats=3).seconds == (1.0, 2.0, 3.0)


def test_what_is_too_quick_for_the_clock_is_run_in_a_loop(clock):
    t = measure(clock.takes("a", 1e-5), repeats=3, at_least=1e-3)
    assert t.seconds == pytest.approx((1e-5,) * 3)
    assert len(clock.ran) == 3 + 3 * 101


def test_after_the_time_allowed_no_round_begins_but_three_are_measured(clock):
    assert len(measure(clock.takes("a", 1.0), repeats=20, at_most=5.5).seconds) == 6
    assert len(measure(clock.takes("a", 9.0), repeats=20, at_most=5.5).seconds) == 3


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"warmup": 0}])
def test_nothing_measured_is_refused(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(InputError, match=f"clock: {name} is 0; use 1 or more"):
        compare({"a": lambda: None}, **wrong)


def test_the_work_of_a_gpu_that_goes_on_behind_the_call_counts(clock, monkeypatch):
    def finished():
        clock.now += 0.5

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", finished)
    assert measure(clock.takes("a", 1.0), repeats=3).seconds == (1.5, 1.5, 1.5)
