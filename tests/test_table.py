"""One table, three forms: text for people, JSON for programs, HTML for pages."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope.table import Column, Table, cell, number, to_json

COLUMNS = (Column("name", "layer"), Column("params", "parameters"), Column("ms", "time", "ms"))
LENET = Table(
    COLUMNS,
    ({"name": "C1", "params": 156, "ms": 0.5}, {"name": "C3", "params": 2416, "ms": 1.25}),
    title="LeNet5",
    total={"name": "total", "params": 2572, "ms": 1.75},
    notes=("≥ where an operator is unknown",),
)

plain = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats() | st.text(max_size=12)
rows = st.lists(st.fixed_dictionaries({"name": plain, "params": plain, "ms": plain}), max_size=6)
data = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


def test_text_is_aligned_with_the_total_set_apart():
    assert str(LENET).splitlines() == [
        "LeNet5",
        "layer  parameters  time (ms)",
        "-----  ----------  ---------",
        "C1            156        0.5",
        "C3          2,416       1.25",
        "-----  ----------  ---------",
        "total       2,572       1.75",
        "≥ where an operator is unknown",
    ]


def test_a_table_without_rows_is_its_heading():
    assert Table(COLUMNS[:1], ()).text() == "layer\n-----"


@given(rows.map(lambda rows: [r | {"name": f"|{r['name']}"} for r in rows]))
def test_every_row_is_one_line_whatever_it_holds(rows):
    assert len(Table(COLUMNS, tuple(rows)).text().splitlines()) == 2 + len(rows)


@given(rows)
def test_json_gives_the_rows_back_with_null_for_what_it_lacks(rows):
    def kept(value):
        return None if isinstance(value, float) and not math.isfinite(value) else value

    read = json.loads(Table(COLUMNS, tuple(rows), notes=("n",)).json())
    assert read == {"rows": [{k: kept(v) for k, v in r.items()} for r in rows], "total": None, "notes": ["n"]}


@given(data)
def test_json_is_strict_and_can_be_written_as_utf8(data):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(to_json(data).encode("utf-8"), parse_constant=refuse)


def test_a_name_that_is_not_unicode_survives_json():
    assert json.loads(to_json({"file": "caf\udce9"}).encode()) == {"file": "caf\udce9"}


def test_html_escapes_every_text():
    bad = "<img src=x onerror=alert(1)>"
    html = Table((Column("a", bad, bad),), ({"a": bad},), title=bad, total={"a": bad}, notes=(bad,)).html()
    assert "<img" not in html
    assert html.count("&lt;img") == 6
    assert LENET._repr_html_() == LENET.html()
    assert '<td class="num">2,416</td>' in LENET.html()
    assert "<tfoot>" not in Table(COLUMNS, ()).html()


@given(st.floats(-1e300, 1e300))
def test_a_number_keeps_four_digits_and_has_no_negative_zero(value):
    shown = number(value)
    assert "-" not in shown.split("e")[0]
    assert float(shown.replace("−", "-")) == pytest.approx(value, rel=5.01e-4, abs=5e-324)
    assert shown != "−0"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (-1234567, "−1,234,567"),
        (0, "0"),
        (float("nan"), "nan"),
        (float("-inf"), "−inf"),
        ((), ""),
        ([3, 224, 224], "3x224x224"),
        ("two\nlines \x1b[31m", "two\\nlines \\x1b[31m"),
        ("caf\udce9", "caf\\udce9"),
        ("naïve 猫", "naïve 猫"),
    ],
)
def test_a_cell_is_what_a_person_reads(value, shown):
    assert cell(value) == shown


def test_words_stand_left_and_numbers_right_and_a_gap_does_not_change_that():
    table = Table(COLUMNS, ({"name": "a", "params": 7}, {"name": "bb", "params": None, "ms": True}))
    assert [line.rstrip() for line in table.text().splitlines()[2:]] == ["a               7", "bb                 yes"]
