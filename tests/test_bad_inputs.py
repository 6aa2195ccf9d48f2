"""The catalogue of bad inputs is true: each line has its test, and the page is made of it.

`python tests/test_bad_inputs.py` writes docs/bad_inputs.md anew.
"""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from bad_inputs import CATALOGUE, Bad
from convscope.cli import main

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "bad_inputs.md"
HEAD = """# Bad inputs

What a workbench meets that reads other people's pictures, labels, weights and requests, and what happens then. Every
line is a test that makes the thing for real. In general: bad input ends with exit code 2, work that fails with 1, both
with one sentence that says where, what was found and how to mend it. A traceback comes with `--debug` alone, and
nothing is left half-written. How the tests are kept: [threat model](threat_model.md).
"""


def page() -> str:
    """The page as it must be."""
    parts = [HEAD]
    for title, rows in CATALOGUE.items():
        cells = "".join(f"| {_cell(row.input)} | {_cell(row.happens)} |\n" for row in rows)
        parts.append(f"## {title}\n\n| comes in | happens |\n|---|---|\n{cells}")
    return "\n".join(parts)


def _cell(text: str) -> str:
    """Signs of HTML are shown, not obeyed; in code they are anyway."""
    return "".join(p if p.startswith("`") else p.replace("<", "&lt;") for p in re.split(r"(`[^`]*`)", text))


@cache
def _read(file: str) -> tuple[str, dict[str, ast.FunctionDef]]:
    """The text of a test file, and its tests by their names."""
    text = (TESTS / file).read_text()
    found = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    return text, {n.name: n for n in found}


ROWS = [row for rows in CATALOGUE.values() for row in rows]


def test_the_page_is_made_from_the_catalogue() -> None:
    assert PAGE.read_text() == page(), "python tests/test_bad_inputs.py writes it anew"


def test_no_line_stands_twice() -> None:
    assert len({row.input for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row.input[:40] for row in ROWS])
def test_a_line_has_a_test_that_asserts_what_it_says(row: Bad) -> None:
    file, name = row.test.split("::")
    text, tests = _read(file)
    function = tests[name]
    helpers = {"raises", "refused", "_refuses", "_tells"}
    called = {getattr(n.func, "attr", getattr(n.func, "id", "")) for n in ast.walk(function) if isinstance(n, ast.Call)}
    assert called & helpers or any(isinstance(n, ast.Assert) for n in ast.walk(function)), f"{row.test} asserts nothing"
    plain = text.replace("\\", "")
    for said in re.findall(r"“([^”]+)”", row.happens):
        assert said in plain, f"{row.test} does not look for {said!r}"


def test_bad_pictures_through_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """One sentence, exit code 2, and no file more than before."""
    monkeypatch.chdir(tmp_path)
    for name, content in {"empty.png": b"", "page.png": b"<html>", "noise.png": bytes(range(256)) * 9}.items():
        Path(name).write_bytes(content)
        for words in (["convolve", name, "--out", "x.png"], ["features", "LeNet5", name, "--out", "maps"]):
            monkeypatch.setattr(sys, "argv", ["convscope", *words])
            with pytest.raises(SystemExit) as stop:
                main()
            out, err = capsys.readouterr()
            assert (stop.value.code, out) == (2, "")
            assert err.splitlines()[-1].startswith(f"convscope: {name}: ")
            assert "Traceback" not in err
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["empty.png", "noise.png", "page.png"]


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"{PAGE.name}: written")
