"""Commands as hurried and hostile people call them: nonsense in every option, odd names and terminals, full disks."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

from convscope.cli import app

# Each verb with words that are right and quick; `--OPTION nonsense` is added.
VERBS: dict[str, list[str]] = {
    "attribute": ["LeNet5", "digits:0", "--method", "input-x-gradient"],
    "convolve": ["digits:0"],
    "data check": ["set"],
    "data show": ["set", "--count", "1"],
    "demo": ["--epochs", "0"],
    "env": [],
    "evaluate": ["LeNet5"],
    "explain conv": [],
    "explain conv-transpose": [],
    "explain value": ["LeNet5", "digits:0", "--layer", "C1", "--unit", "0,0,0,0"],
    "export": ["nothing", "--out", "m.pt2"],
    "family": [],
    "features": ["LeNet5", "digits:0", "--layer", "C1"],
    "field": ["LeNet5", "--layer", "C1"],
    "inspect": ["LeNet5"],
    "lab": ["nothing", "--export", "l.html"],
    "optimize": ["nothing"],
    "patches": ["LeNet5", "--layer", "C1", "--channel", "0", "--data", "set"],
    "predict": ["LeNet5", "digits:0"],
    "profile": ["nothing"],
    "train": ["classify", "--data", "nothing"],
    "visualise": ["LeNet5", "--layer", "C1", "--channel", "0", "--steps", "1"],
}
NONSENSE = [
    *("", "nonsense", "-1", "nan", "1e999", "99999999999999999999999", "\n", "\udcff", "\x1b[31m", "a" * 300),
    *(".", "/", "a.png/b.png", "/dev/full", "/dev/zero", "pipe", "/proc/a.png", "1x", "0x0", "-1,-1", "٣"),
]
ALL = "CONVSCOPE_FUZZ" in os.environ  # every pair of option and nonsense, not one for each option


def _verbs(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        full = f"{name} {word}".strip()
        yield from _verbs(command, full) if hasattr(command, "commands") else [(full, command)]


def _asked() -> Iterator[tuple[str, str, str]]:
    """Verb, option or argument, nonsense."""
    turn = itertools.cycle(NONSENSE)
    for verb, command in _verbs(typer.main.get_command(app)):
        for option in command.params:
            if option.param_type_name == "argument" or not option.is_flag:
                for nonsense in NONSENSE if ALL else [next(turn), next(turn)]:
                    yield verb, option.name if option.param_type_name == "argument" else option.opts[0], nonsense


def test_there_are_words_for_every_verb() -> None:
    assert {verb for verb, _ in _verbs(typer.main.get_command(app))} == VERBS.keys()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a small data set."""
    monkeypatch.chdir(tmp_path)
    for name, index in itertools.product(("cat", "dog"), range(4)):
        Path("set", name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * index).save(f"set/{name}/{index}.png")
    os.mkfifo("pipe")  # to open it would wait for ever
    return tmp_path


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("verb", VERBS)
def test_nonsense_in_any_option_is_done_or_refused_in_a_sentence_and_leaves_nothing(
    verb: str, here: Path, call: Any
) -> None:
    before = _files(here)
    for option, nonsense in [(option, nonsense) for name, option, nonsense in _asked() if name == verb]:
        words = [*verb.split(), *VERBS[verb], *([option] if option[0] == "-" else []), nonsense]
        code, out, err = call(*words)
        told = f"{words}: {code}\n{err[-600:]}"
        assert code in (0, 1, 2, 3 if "--max" in option else 0), told
        assert "internal error" not in err + out, told
        assert "Traceback" not in err, told
        assert "\x1b" not in err, told
        if code:
            assert err.strip(), told
            assert _files(here) == before, told
        for made in [p for p in _files(here) if p not in before][::-1]:
            (here / made).rmdir() if (here / made).is_dir() else (here / made).unlink()


# Names


def _photograph(name: str) -> str:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(name)
    return name


@pytest.mark.parametrize(
    "words",
    [["convolve", "x.png"], ["attribute", "LeNet5", "x.png"], ["field", "LeNet5", "--layer", "C1", "--image", "x.png"],
     ["explain", "LeNet5", "x.png", "--layer", "C1", "--unit", "0,0,0,0"], ["explain", "conv", "--picture", "x.png"]],
    ids=lambda words: " ".join(words[:2]),
)  # fmt: skip
@pytest.mark.parametrize("out", ["x.png", "link.png"])
def test_a_picture_is_never_written_over_by_what_is_made_of_it(
    words: list[str], out: str, here: Path, call: Any
) -> None:
    before = Path(_photograph("x.png")).read_bytes()
    Path("link.png").symlink_to("x.png")
    code, _, err = call(*words, "--out", out)
    assert (code, "is the picture that is read, and would be lost; give another --out" in err) == (2, True), err
    assert Path("x.png").read_bytes() == before


def test_drawings_do_not_replace_the_pictures_that_they_are_of(here: Path) -> None:
    from convscope.predict.saving import Drawings

    names = [_photograph(name) for name in ("a.png", "b.png")]
    beside, apart = Drawings(here, [names[0], str(here / names[1])]), Drawings(here / "new", names)
    assert [beside._file(name) for name in names] == [here / "a-2.png", here / "b-2.png"]
    assert [apart._file(name) for name in names] == [here / "new" / "a.png", here / "new" / "b.png"]


@pytest.mark.parametrize("name", ["new\nline.png", "\x1b[31mred.png", "\udcff.png", "😀 %s {x} '\"<b>$.png"])
def test_names_of_any_letters_are_shown_and_written(name: str, here: Path, call: Any) -> None:
    _photograph(name)
    for words in (["attribute", "LeNet5", name], ["predict", "LeNet5", name, "--out", "told"],
                  ["lab", "LeNet5", name, "--export", "l.html"], ["convolve", name, "--json"]):  # fmt: skip
        code, out, err = call(*words)
        assert code == 0, err
        assert "\x1b" not in err + out
    rows = json.loads(Path("told/predictions.json").read_text(encoding="utf-8"))["predictions"]
    assert rows[0]["image"] == name
    assert Path("told/predictions.csv").read_text(encoding="utf-8")


def test_what_failed_leaves_no_folder(here: Path, call: Any) -> None:
    Path("empty.png").touch()
    before = _files(here)
    for words in (["features", "LeNet5", "empty.png"], ["predict", "LeNet5", "empty.png"], ["train", "classify"],
                  ["patches", "LeNet5", "--layer", "no", "--channel", "0", "--data", "set"]):  # fmt: skip
        code, _, err = call(*words, "--out", "deep/new/folder", *(["--data", "none"] if "train" in words else []))
        assert (code, _files(here)) == (2, before), err


# Terminals, disks, memory


def _run(*words: str, **options: Any) -> tuple[int, str, str]:
    command = [sys.executable, "-c", "from convscope.cli import main; main()", *words]
    options = {"stdout": subprocess.PIPE, **options}
    done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", timeout=120, **options)
    return done.returncode, done.stdout or "", done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_is_full_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = _run("--help", stdout=full)
    assert (code, err) == (
        1,
        "convscope: the output: No space left on device; free what it needs, or name another place\n",
    )


def test_letters_that_a_terminal_lacks_are_spelt_out() -> None:
    poor = os.environ | {"PYTHONIOENCODING": "latin-1"}
    code, out, err = _run("explain", "conv", "--values", "1 -1; 0 1", "--kernel", "1", env=poor)
    assert (code, err) == (0, "")
    assert "\\u2212" in out  # the true minus sign


@pytest.mark.parametrize("columns", ["0", "1", "-5", "abc", "999999999"])
def test_a_width_that_no_terminal_has_is_none(columns: str) -> None:
    assert _run("inspect", "--help", env=os.environ | {"COLUMNS": columns}) == _run("inspect", "--help")


def test_a_folder_that_was_removed_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = (
        f"cd {gone} && rmdir {gone} && exec {sys.executable} -c 'from convscope.cli import main; main()' inspect LeNet5"
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, "convscope: the current folder: is gone; go to one that is there\n")


def test_memory_that_runs_out_is_said(call: Any) -> None:
    code, out, err = call("profile", "LeNet5", "--batch-size", str(2**40))
    assert (code, out) == (1, "")
    assert err.endswith("convscope: memory ran out; use a smaller size, or fewer at a time\n")
