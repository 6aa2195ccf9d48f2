"""`convscope family`: what it prints, what it writes, what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from convscope.cli import app
from convscope.clock import Limits
from convscope.errors import InputError
from convscope.family import MAPS, MEMBERS


def call(*words: str):
    return CliRunner().invoke(app, ["family", *words])


def test_a_table_of_all_members():
    done = call("--input", "8x10x12", "--out-channels", "8", "--batch", "1")
    assert done.exit_code == 0
    assert done.stdout.startswith("1x8x10x12 to 8 channels, kernel 3x3, groups 4, float32\n")
    assert [line for name in MEMBERS for line in done.stdout.splitlines()[3:] if line.startswith(f"{name}  ")]
    assert "forward" not in done.stdout


def test_every_option_reaches_the_setting():
    words = "--input 6x9x10 --out-channels 9 --batch 2 --kernel-size 5x3 --stride 2x1 --padding 1 --dilation 2x1"
    done = call(*words.split(), *["--groups", "3", "--scale", "3", "--output-padding", "1", "--json"])
    assert json.loads(done.stdout)["setting"] == {
        "in_channels": 6,
        "out_channels": 9,
        "size": [9, 10],
        "batch": 2,
        "kernel_size": [5, 3],
        "stride": [2, 1],
        "padding": [1, 1],
        "dilation": [2, 1],
        "groups": 3,
        "scale": 3,
        "output_padding": 1,
    }


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_without_an_input_the_axes_choose_one(ndim):
    data = json.loads(call("--ndim", str(ndim), "--json").stdout)
    channels, *size = MAPS[ndim]
    assert data["members"][0]["output_shape"] == [8, channels, *size]


def test_the_clock_and_the_picture(tmp_path, monkeypatch):
    machine = Limits("a processor", 2, "2.0", {"float32": 1e9}, ((1024, 1e9),), 1e-6)
    monkeypatch.setattr("convscope.family.timing.limits", lambda: machine)
    target = tmp_path / "family.svg"
    done = call("--input", "4x6x6", "--batch", "1", "--time", "--plot", str(target))
    assert done.exit_code == 0, done.output
    assert f"wrote {target}" in done.stderr
    assert "faster (x)" in done.stdout
    assert target.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "3x4", "--ndim", "2"], "--ndim: is 2, but --input 3x4 has 1 spatial axes; give one of them"),
        (["--input", "3"], "family: size is (); give one, two or three axes"),
        (["--kernel-size", "three"], "--kernel-size: 'three' is not whole numbers; write some with 'x' between them"),
        (["--input", "8x8x8", "--groups", "3"], "family: groups is 3; 8 channels divide into 1, 2, 4, 8"),
        (["--plot", "family.bmp"], "family.bmp: a figure is png, svg, pdf; let the name end in one of them"),
        (["--plot", "folder.png"], "folder.png: is a folder, but a file is to be written; give another --plot"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    done = call(*words)
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == message
    assert done.stdout == ""
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]
