"""Each target of the fuzzers takes any bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuzz
import fuzz_targets
from fuzzing import budget


@pytest.fixture(scope="module", autouse=True)
def cleaned():
    yield
    fuzz_targets.clean()


def test_the_fuzzer_knows_all_targets() -> None:
    assert [*fuzz_targets.TARGETS] == fuzz.TARGETS


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_what_a_fuzzer_begins_with_is_taken(name: str) -> None:
    fuzz_targets.TARGETS[name](fuzz_targets.seed(name))


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
@budget(20)
@given(content=st.binary(max_size=200))
def test_any_bytes(name: str, content: bytes) -> None:
    fuzz_targets.TARGETS[name](content)
