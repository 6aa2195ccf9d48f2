"""Every error that the package can raise, read in its source: it names the place, what was found, and the remedy."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "convscope"
OURS = {
    *("InputError", "ImageError", "ModelError", "DataError", "ConfigError", "CheckpointError", "RunError"),
    *("LimitError", "Interrupted", "Stopped", "MissingError", "OutOfTimeError"),
}
PLACE = re.compile(r"^(?!\s)[^;]*?: (?=\S)|^\{(where|who|error)\}")  # those begin with a place themselves
REMEDY = re.compile(
    r"; |train again|\{_why\(|\{nearest\(|\{_advice\(|; \{|did you mean|known: |pip install|export to|there are |"
    r"\b(takes|use|give|choose|needs|call|add|write|ask for)\b"
)
REASONS = {  # of files whose sentences stand in the row of the candidate that they belong to
    *("optimize/bench.py", "optimize/candidates.py", "optimize/structural.py", "optimize/retrain.py"),
}
MADE_ELSEWHERE = {  # made by a function whose own tests hold it to the rule, or ended by the caller
    "'\\n'.join(broken)",
    "head['error']",
    "f'{source}: {what_it_is(head, FORMATS)}'",
    "f'{who}: box {at} {wrong}'",
    "_sentence(error, recorder, model, given)",
    "_sentence(error, origin)",
    "f'{path}: {what}'",
    "f'{path}: is not a checkpoint ({why_unread(error)})'",
    "left_out[0]",
    "str(error).replace('kernel:', '--values:', 1)",
    "str(error).replace('kernel:', '--bias:', 1)",
    "self._not_finite(values['loss'], samples)",
    "str(error)",
    "str(picture).replace(str(path), name)",
}
PYTHONS = {  # where exceptions of Python's are raised, for a caller that catches them or expects these
    "__init__.py": {"AttributeError"},
    "machine.py": {"AttributeError"},
    "data/decoding.py": {"EOFError"},
    "data/formats/coco.py": {"ValueError"},
    "data/outlines.py": {"ValueError"},
    "engines/card.py": {"ValueError"},
    "engines/fused/program.py": {"ValueError"},
    "files.py": {"OSError"},
    "graph/recorder.py": {"TypeError"},
    "layers/family.py": {"TypeError"},
    "layers/fast/forms.py": {"NotImplementedError"},
    "layers/fast/training.py": {"RuntimeError"},
    "layers/fast/operators.py": {"RuntimeError"},
    "predict/cluster.py": {"KeyboardInterrupt"},
    "runs/folder.py": {"ValueError"},
}


TREES = {p.relative_to(SOURCE).as_posix(): ast.parse(p.read_text()) for p in sorted(SOURCE.rglob("*.py"))}


def _all(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """(file, node) of each node of that kind in the source."""
    return ((name, node) for name, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, kind))


def _raised() -> Iterator[tuple[str, str, str]]:
    """(file:line, class, what is said with blanks in braces) of each error of ours that is made."""
    for name, node in _all(ast.Call):
        kind = getattr(node.func, "id", "")
        if kind in OURS and name not in REASONS and node.args and ast.unparse(node.args[0]) not in MADE_ELSEWHERE:
            yield f"{name}:{node.lineno}", kind, _template(node.args[0])


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{" + ast.unparse(node.value) + "}"
    return node.value if isinstance(node, ast.Constant) else "{" + ast.unparse(node) + "}"


RAISED = list(_raised())


def test_there_are_errors_to_read() -> None:
    assert len(RAISED) > 300
    assert {kind for _, kind, _ in RAISED} >= OURS - {"ConfigError", "LimitError"}


def _wrong(said: str) -> list[str]:
    """What the sentence lacks."""
    rest = said[found.end() :] if (found := PLACE.match(said)) else said
    facts = {
        "a place": found is not None,
        "a remedy": REMEDY.search(rest) is not None,
        "one line": "\n" not in said,
        "no full stop": not said.endswith((".", "!")),
        "plain words": not re.search(r"(?i)\b(please|sorry|oops|invalid|illegal|error occurred)\b", said),
    }
    return [name for name, there in facts.items() if not there]


def test_every_error_names_the_place_what_was_found_and_the_remedy() -> None:
    assert [f"{where} lacks {what}: {said}" for where, _, said in RAISED for what in _wrong(said)] == []


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ("nothing works", ["a place", "a remedy"]),
        ("cat.png: is empty", ["a remedy"]),
        ("cat.png: is invalid; get a whole copy.", ["no full stop", "plain words"]),
        ("cat.png: is empty (0 bytes); get a whole copy", []),
    ],
)
def test_the_rule_tells_good_sentences_from_bad(said: str, lacks: list[str]) -> None:
    assert _wrong(said) == lacks


def test_every_class_of_ours_is_read() -> None:
    bases = {node.name: {getattr(base, "id", "") for base in node.bases} for _, node in _all(ast.ClassDef)}
    ours = {"ConvscopeError"}
    while more := {name for name, of in bases.items() if of & ours} - ours:
        ours |= more
    assert ours - {"ConvscopeError"} <= OURS


def test_other_errors_are_raised_only_where_somebody_makes_a_sentence_of_them() -> None:
    """An exception of Python's would be an internal error to the person who meets it."""
    found: dict[str, set[str]] = {}
    for name, node in _all(ast.Raise):
        made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        kind = getattr(made, "id", "")
        if issubclass(getattr(builtins, kind, int), BaseException):
            found.setdefault(name, set()).add(kind)
    assert found == PYTHONS


def test_every_finding_about_data_says_how_to_mend_it() -> None:
    calls = [(name, n) for name, n in _all(ast.Call) if getattr(n.func, "attr", "") in ("add", "note")]
    findings = [(name, n) for name, n in calls if name.startswith("data/") and len(n.args) == 4]
    assert len(findings) > 50
    for name, node in findings:
        where, what, mend = (_template(part) for part in node.args[1:])
        told = f"{name}:{node.lineno}: {where}: {what}; {mend}"
        assert where, told
        assert what, told
        assert len(mend) > 3, told
        assert not re.search(r"(?<!\.\.)\.$", mend), told


def test_every_option_that_an_error_names_is_there() -> None:
    there = set(re.findall(r"--[a-z][a-z-]*", (Path(__file__).parent / "cli_options.txt").read_text()))
    named = {(where, option) for where, _, said in RAISED for option in re.findall(r"--[a-z][a-z-]*", said)}
    assert len(named) > 20
    assert sorted((where, option) for where, option in named if option not in there) == []
