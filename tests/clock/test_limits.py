"""The machine's limits: their arithmetic, and that they are measured once."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convscope.clock import Limits, cache, limits
from convscope.errors import InputError

SOME = Limits("p", 2, "2.10", macs={"float32": 200e9, "int8": 800e9}, bytes=((2**18, 100e9), (2**24, 50e9)), call=1e-6)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "convscope"


@pytest.fixture
def counted(monkeypatch):
    """The measuring, replaced by something quick that counts."""
    import sys

    module, calls = sys.modules["convscope.clock.limits"], []
    monkeypatch.setattr(module, "_measured", lambda key: calls.append(key) or SOME)
    return calls


@given(macs=st.floats(0, 1e12), size=st.floats(0, 1e9), dtype=st.sampled_from(["float32", "int8"]))
def test_the_least_time_is_a_call_and_the_longer_of_arithmetic_and_memory(macs, size, dtype):
    parts = {
        "arithmetic": macs / SOME.macs[dtype],
        "memory": size / SOME.bytes_per_second(size),
        "call": 1e-6,
    }
    assert SOME.least_seconds(macs=macs, bytes=size, dtype=dtype) == 1e-6 + max(parts["arithmetic"], parts["memory"])
    assert parts[SOME.bound(macs=macs, bytes=size, dtype=dtype)] == max(parts.values())


def test_the_working_set_decides_on_the_rate_of_memory():
    assert SOME.least_seconds(macs=0, bytes=1e8) == 1e-6 + 1e8 / 50e9
    assert SOME.least_seconds(macs=0, bytes=1e8, working_set=2**10) == 1e-6 + 1e8 / 100e9
    for size, rate in SOME.bytes:
        assert SOME.bytes_per_second(size) == rate
    assert SOME.bytes_per_second(1) == 100e9
    assert SOME.bytes_per_second(2**40) == 50e9


@given(st.floats(0, 1))
def test_between_two_working_sets_the_time_grows_evenly(part):
    (small, fast), (large, slow) = SOME.bytes
    size = small + part * (large - small)
    wanted = small / fast + part * (large / slow - small / fast)
    assert size / SOME.bytes_per_second(size) == pytest.approx(wanted)


def test_dtypes_are_named_as_torch_does_and_unknown_ones_refused():
    assert SOME.least_seconds(macs=2e9, bytes=0, dtype=torch.float32) == 1e-6 + 0.01
    with pytest.raises(InputError, match="limits: float64 was not measured; use float32, int8"):
        SOME.least_seconds(macs=1, bytes=1, dtype=torch.float64)


def test_they_are_measured_once_and_kept(empty_cache, counted):
    assert limits() == SOME
    assert limits() == SOME
    assert len(counted) == 1
    assert limits(anew=True) == SOME
    assert len(counted) == 2
    assert len(list(empty_cache.iterdir())) == 1


def test_they_are_kept_by_the_number_of_threads(empty_cache, counted, monkeypatch):
    limits()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    limits()
    assert [key["threads"] == 77 for key in counted] == [False, True]


def _broken(data: str) -> list[str]:
    whole = json.loads(data)
    parts = [whole | {"data": whole["data"] | {name: bad}} for name, bad in BAD]
    return [data[: len(data) // 2], "", "[]", "7", *(json.dumps(p) for p in parts), json.dumps(whole | {"key": {}})]


BAD = [("macs", {}), ("macs", 5), ("bytes", []), ("bytes", [[1]]), ("call", None), ("call", -1.0), ("call", "x")]


def test_a_damaged_file_is_measured_again(empty_cache, counted):
    limits()
    (file,) = empty_cache.iterdir()
    for text in _broken(file.read_text()):
        file.write_text(text)
        before = len(counted)
        assert limits() == SOME
        assert len(counted) == before + 1, text


def test_without_a_folder_to_write_they_are_measured_and_not_kept(tmp_path, counted, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert limits() == SOME
    assert limits() == SOME
    assert len(counted) == 2


def test_what_is_measured_is_of_the_right_size(empty_cache):
    """Loose bounds that any processor of this century keeps: a wrong unit or a wrong count does not."""
    found = limits()
    assert 1e8 < found.macs["float32"] < 1e14
    assert all(1e8 < rate < 1e13 for _, rate in found.bytes)
    assert [rate for _, rate in found.bytes] == sorted((rate for _, rate in found.bytes), reverse=True)
    assert 1e-8 < found.call < 1e-3
    assert limits() == found
    assert {row["unit"] for row in found.table().rows} == {"GMAC/s", "GB/s", "us"}


def test_the_cache_folder_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard: ignore what is not absolute
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "convscope"
    assert cache.load("nothing", {"a": (1, 2)}) is None
    assert cache.save("nothing", {"a": (1, 2)}, [3])
    assert cache.load("nothing", {"a": (1, 2)}) == [3]
