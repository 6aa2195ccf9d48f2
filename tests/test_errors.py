"""The exception tree, its exit codes, and the help with a misspelt name."""

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ConvscopeError)]


def test_the_drawing_names_every_class_and_its_exit_code():
    drawn = re.findall(r"[├└]── (\w+)|^    (ConvscopeError)", errors.__doc__, re.MULTILINE)
    assert {a or b for a, b in drawn} == {c.__name__ for c in CLASSES}


@pytest.mark.parametrize("error", CLASSES)
def test_bad_input_exits_with_2_and_failed_work_with_1_and_a_broken_limit_with_3(error):
    otherwise = 3 if error is errors.LimitError else 1
    assert error.exit_code == (2 if issubclass(error, ValueError) else otherwise)
    assert issubclass(error, ValueError) == issubclass(error, errors.InputError)


def test_a_failed_run_is_a_runtime_error():
    assert issubclass(errors.RunError, RuntimeError)


words = st.lists(st.text("abcdef", min_size=3, max_size=8), min_size=1, max_size=30, unique=True)


@given(known=words, data=st.data())
def test_one_added_letter_finds_a_name_again(known, data):
    name = data.draw(st.sampled_from(known))
    said = errors.nearest(name.upper() + "x", known)
    assert said.startswith("did you mean '")
    assert said[14:-2] in known


@given(known=words)
def test_without_a_near_name_the_known_are_listed_twelve_at_most(known):
    said = errors.nearest("?", known)
    listed = said.removeprefix("known: ").removesuffix(", ...").split(", ")
    assert listed == sorted(known)[:12]
    assert said.endswith(", ...") == (len(known) > 12)
