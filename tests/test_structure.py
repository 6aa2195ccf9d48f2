"""The shape of the project itself: who imports whom, how long things are, what is public, what the pages show.

`python tests/test_structure.py` writes the snapshot of the command line's options anew.
"""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "convscope"
SNAPSHOT = ROOT / "tests" / "cli_options.txt"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FAST = {"env", "inspect", "--help", "--version"}  # documented commands of these are run, others are parsed

MAX_FILE, MAX_FUNCTION = 400, 60
LONGER: dict[str, str] = {}  # "models/classic.py" or "models/classic.py:build" -> the reason why it may be longer


# Layers


def test_imports_keep_to_the_contracts():
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


# Length


def _lengths(path: Path) -> dict[str, tuple[int, int]]:
    """Lines, and the most there may be, of a file and of each function in it."""
    name, text = path.relative_to(SOURCE).as_posix(), path.read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    spans = {f"{name}:{f.name}": ((f.end_lineno or f.lineno) - f.lineno + 1, MAX_FUNCTION) for f in functions}
    return {name: (len(text.splitlines()), MAX_FILE)} | spans


def test_files_and_functions_are_short_or_say_why_not():
    lengths = {name: found for path in SOURCE.rglob("*.py") for name, found in _lengths(path).items()}
    longer = {name: f"{lines} lines, {most} at most" for name, (lines, most) in lengths.items() if lines > most}
    assert longer.keys() == LONGER.keys(), longer


# Public names


def test_all_lists_the_public_names():
    convscope = importlib.import_module("convscope")
    assert len(set(convscope.__all__)) == len(convscope.__all__)
    for name in convscope.__all__:
        assert hasattr(convscope, name), name
    checked = [n for n in ast.parse((SOURCE / "__init__.py").read_text()).body if isinstance(n, ast.If)]
    typed = {alias.name for block in checked for line in block.body for alias in getattr(line, "names", ())}
    assert typed == set(convscope.__all__), "what a type checker sees is what is listed"


def test_every_public_name_is_on_the_api_page():
    page = (ROOT / "docs" / "api.md").read_text()
    names = importlib.import_module("convscope").__all__
    missing = [n for n in names if not n.startswith("_") and not re.search(rf"\b{n}\b", page)]
    assert missing == []


def test_the_changelog_has_the_version():
    version = importlib.import_module("convscope").__version__
    assert re.search(rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_package_says_that_it_is_typed():
    assert (SOURCE / "py.typed").exists()


# The command line

HELP = """
import sys
sys.argv = ["convscope", "--help"]
from convscope.cli import main
try:
    code = main()
except SystemExit as stop:
    code = stop.code
print([m for m in ("torch", "numpy", "matplotlib", "lightning_fabric") if m in sys.modules], code or 0)
"""


def test_help_comes_at_once_and_without_torch():
    """In processor time, which is the clock's where nothing else runs."""
    seconds = []
    for _ in range(5):
        before = os.times()
        run = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))  # of children that have ended: user and system
        assert run.stdout.splitlines()[-1] == "[] 0"
    assert min(seconds) < 0.4, seconds


def command_line():
    """The verbs of the command line, by their names."""
    typer_main = importlib.import_module("typer.main")
    return typer_main.get_command(importlib.import_module("convscope.cli").app)


def commands() -> dict[str, object]:
    """Every command by its words; those of a group after the group's name."""
    found = {}
    for verb, command in sorted(command_line().commands.items()):
        below = getattr(command, "commands", {})
        found |= {f"{verb} {name}": c for name, c in sorted(below.items())} if below else {verb: command}
    return found


def option_lines() -> list[str]:
    """One line a parameter: verb, its spellings, what it is when not given."""
    lines = []
    for verb, command in [("", command_line()), *commands().items()]:
        for parameter in command.params:
            is_argument = parameter.param_type_name == "argument"
            names = parameter.name.upper() if is_argument else ", ".join(parameter.opts + parameter.secondary_opts)
            default = "" if callable(parameter.default) or parameter.default in (None, "") else parameter.default
            given = "required" if parameter.required else f"default {default}" if default != "" else "optional"
            lines.append(" ".join(["convscope", *([verb] if verb else []), names, f"[{given}]"]))
        lines += [] if command.params else [f"convscope {verb}"]
    return lines


def test_the_options_are_the_snapshot():
    """An option is a promise: `python tests/test_structure.py` writes the snapshot anew, for the review to see."""
    assert SNAPSHOT.read_text().splitlines() == option_lines()


# What the pages show


def console_lines() -> list[tuple[str, str]]:
    """(page, command) for every `$ ... convscope ...` in a page; a backslash goes on to the next line."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        found += [(page.name, line) for line in re.findall(r"^\s*\$ .*?\bconvscope\b(.*)$", text, re.MULTILINE)]
    return found


def verb_of(words: list[str]) -> str:
    return next((w for w in words if not w.startswith("-")), words[0] if words else "")


@pytest.mark.parametrize(("page", "line"), console_lines())
def test_a_documented_command_parses(page, line):
    words, app = shlex.split(line, comments=True), command_line()
    verb = verb_of(words)
    if verb.startswith("-") or not verb:
        known = {name for p in app.params for name in p.opts} | {"--help"}
        assert set(words) <= known, f"{page}: {words}"
        return
    assert verb in app.commands, f"{page}: there is no verb {verb!r}"
    command, rest = app.commands[verb], words[words.index(verb) + 1 :]
    if hasattr(command, "commands"):  # a group: its own verb comes next, or is left out where there is a default
        name = rest.pop(0) if rest[:1] and rest[0] in command.commands else getattr(command, "default", None)
        assert name, f"{page}: {line} needs one of {sorted(command.commands)}"
        command = command.commands[name]
    context = command.context_class(command, info_name=verb)
    given, left, _ = command.make_parser(context).parse_args([w for w in rest if w != "--help"])
    assert left == [], f"{page}: convscope {line} has words too many: {left}"
    required = {p.name for p in command.params if p.required}
    assert required <= {name for name, value in given.items() if value}, f"{page}: {line} lacks {required}"


@pytest.mark.parametrize(("page", "line"), [c for c in console_lines() if verb_of(shlex.split(c[1])) in FAST])
def test_a_fast_documented_command_runs(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    testing, cli = importlib.import_module("typer.testing"), importlib.import_module("convscope.cli")
    result = testing.CliRunner().invoke(cli.app, shlex.split(line, comments=True))
    assert result.exit_code == 0, f"{page}: {result.output} {result.exception!r}"
    assert result.output.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_verb_has_its_page_and_the_readme_names_it():
    readme = (ROOT / "README.md").read_text()
    for verb in command_line().commands:
        assert (ROOT / "docs" / f"{verb}.md").exists(), f"docs/{verb}.md is missing"
        assert f"`convscope {verb}" in readme, f"README.md does not name {verb}"


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in nav


def test_the_tools_that_check_needs_are_in_the_dev_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = re.findall(r"\$\(BIN\)/(ruff|pyright|lint-imports|pytest)\b", (ROOT / "Makefile").read_text())
    names = {re.split(r"[<>=\[]", n)[0] for n in extras["dev"]} | {"lint-imports"}
    assert set(needed) <= names


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(option_lines()) + "\n")
    print(f"{SNAPSHOT.name}: written")
