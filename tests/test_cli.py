"""The command line as a person meets it: exit codes, one sentence on stderr, data on stdout."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from convscope.cli import app


def run(*words, cwd=None):
    """A command in a process of its own: exit code, stdout, stderr."""
    command = [sys.executable, "-m", "convscope", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def picture(path: Path) -> tuple[str | None, tuple[int, int]]:
    """Format and size of a picture file."""
    with Image.open(path) as image:
        return image.format, image.size


def cut_png(folder: Path) -> Path:
    whole = folder / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole)
    (folder / "cut.png").write_bytes(whole.read_bytes()[:2000])
    return folder / "cut.png"


BAD = {
    "misspelt model": (["inspect", "LeNet"], "did you mean 'LeNet5'?"),
    "misspelt torchvision model": (["inspect", "torchvision:resnet19"], "did you mean 'resnet1"),
    "missing picture": (["features", "LeNet5", "no.png"], "no.png"),
    "kernel larger than the picture": (
        ["convolve", "digits:0", "--out-channels", "2", "--kernel-size", "40"], "40"),
    "misspelt kernel": (["convolve", "--kernel", "sobel"], "did you mean 'sobel-y'?"),
    "ragged kernel": (["convolve", "--kernel", "1 2; 3"], "row"),
    "size that is no number": (["convolve", "--stride", "two"], "is not whole numbers"),
    "size with three numbers": (["convolve", "--stride", "1x2x3"], "give one, or height x width"),
    "input that does not fit": (["inspect", "LeNet5", "--input", "3x32x32"], "features.C1 raised"),
    "model without a known input": (["inspect", "torch.nn:Identity"], "give --input CxHxW"),
    "misspelt layer": (["explain", "LeNet5", "digits:0", "--layer", "C33", "--unit", "0,0,0,0"], "did you mean"),
    "unit outside": (["explain", "LeNet5", "digits:0", "--layer", "C3", "--unit", "0,16,0,0"], "use 0..0, 0..15"),
    "no unit": (["explain", "LeNet5", "digits:0", "--layer", "C3"], "give --layer and --unit, or --first-nan"),
    "tree too deep": (
        ["explain", "LeNet5", "digits:0", "--layer", "C3", "--unit", "0,0,0,0", "--depth", "201"],
        "trace: depth is 201; use 1 to 200",
    ),
    "field of no layer": (["field", "LeNet5", "--layer", "C33"], "did you mean"),
    "field of a place outside": (["field", "LeNet5", "--layer", "C3", "--unit", "0,10"], "there is no unit 0,all,0,10"),
    "digit that is not there": (["predict", "LeNet5", "digits:360"], "digits:0 to digits:359"),
    "run that is none": (["evaluate", "."], "holds no run"),
    "misspelt setting": (["train", "classify", "--set", "epoch=3"], "did you mean 'epochs'?"),
    "misspelt task": (["train", "clasify"], "task"),
    "empty kernel": (["convolve", "--kernel", ""], "convscope: "),
    "number beyond all size": (["convolve", "--stride", "99999999999999999999"], "holds a number above"),
    "axis of no elements": (["inspect", "LeNet5", "--input", "1x0x32"], "has an axis of no elements"),
    "input that is no picture": (["features", "LeNet5", "flower", "--input", "3x32"], "which is no picture"),
    "no name at all": (["inspect", ""], "no such name"),
    "misspelt verb": (["inspct", "LeNet5"], "inspct"),
    "missing argument": (["inspect"], "MODEL"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_2(name, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, expected = BAD[name]
    code, out, err = call(*words)
    assert code == 2
    assert expected in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.rglob("*.part")) == []


def test_an_empty_or_cut_picture_leaves_no_file_behind(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.png").touch()
    for name in ("empty.png", cut_png(tmp_path).name):
        code, _, err = call("convolve", name, "--out", "result.png")
        assert code == 2
        assert name in err
    assert not Path("result.png").exists()


@pytest.mark.parametrize(
    "words", [["convolve"], ["features", "LeNet5"], ["attribute", "LeNet5"], ["field", "LeNet5", "--layer", "C1"]]
)
def test_a_cut_picture_is_shown_where_that_is_allowed(words, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = cut_png(tmp_path).name
    words += ["--image", name] if "--layer" in words else [name]
    words += ["--out", "result.png"]
    code, _, err = call(*words)
    assert (code, "is cut short or damaged" in err, "--allow-truncated" in err) == (2, True, True)
    assert not Path("result.png").is_file()
    code, _, err = call(*words, "--allow-truncated")
    assert code == 0, err
    assert Path("result.png").exists()
    assert words[0] == "convolve" or "what could be decoded is shown" in err


@pytest.mark.parametrize(
    ("words", "option"),
    [(["family", "--time", "--plot", "f/a.png"], "--plot"), (["profile", "LeNet5", "--flame", "f/a.png"], "--flame"),
     (["lab", "--export", "f/a.html"], "--export"), (["convolve", "--out", "f/a.png"], "--out")],
)  # fmt: skip
def test_a_place_that_cannot_be_written_is_told_with_its_own_option(words, option, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("a file")
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.strip().endswith(f"give another {option}")


@pytest.mark.parametrize("words", [["convolve"], ["features", "LeNet5", "digits:0"], ["train", "classify"], ["demo"]])
def test_a_folder_that_cannot_be_written_is_refused_before_work_begins(words, call, tmp_path):
    (tmp_path / "file").write_text("here")
    code, _, err = call(*words, "--out", tmp_path / "file" / "below")
    assert code == 2
    assert "give another --out" in err
    assert (tmp_path / "file").read_text() == "here"


def test_debug_shows_the_traceback_and_its_absence_does_not():
    quiet, loud = run("inspect", "LeNet"), run("inspect", "LeNet", "--debug")
    assert quiet[0] == 2
    assert quiet[2].startswith("convscope: model 'LeNet'")
    assert len(quiet[2].strip().splitlines()) == 1
    assert "Traceback" in loud[2]


def test_an_error_of_ours_that_was_not_foreseen_exits_1(call, monkeypatch):
    monkeypatch.setattr("convscope.machine.describe", lambda: 1 / 0)
    code, _, err = call("env")
    assert code == 1
    assert "internal error: ZeroDivisionError" in err


def test_version():
    from convscope import __version__

    assert CliRunner().invoke(app, ["--version"]).output == f"convscope {__version__}\n"


def test_inspect_json_holds_total_and_operators(call):
    code, out, err = call("inspect", "LeNet5", "--json")
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert data["total"]["params"] == 61_706
    assert data["total"]["macs"] == 416_520
    assert [o["module"] for o in data["operators"]][:2] == ["features.C1", "features.relu1"]


def test_inspect_takes_torchvision_and_functions(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("from torch import nn\ndef net():\n    return nn.Conv2d(3, 10, 5)\n")
    _, out, _ = call("inspect", "mine:net", "--input", "3x32x32", "--json")
    assert json.loads(out)["total"]["params"] == 760
    assert "11,689,512" in call("inspect", "torchvision:resnet18")[1]


def test_convolve_prints_the_formula_and_draws(call, tmp_path):
    code, out, err = call("convolve", "--kernel", "sobel-x", "--padding", "1", "--out", tmp_path / "x.png")
    assert code == 0
    assert "(427 - 3 + 2*1) / 1 + 1 = 427" in out
    assert picture(tmp_path / "x.png")[0] == "PNG"
    assert "wrote" in err


def test_convolve_two_random_layers_on_a_picture_with_four_channels(call, tmp_path):
    Image.fromarray(np.full((30, 40, 4), 200, np.uint8)).save(tmp_path / "rgba.png")
    layers = ["--out-channels", 32, "--out-channels", 128, "--kernel-size", "5x3"]
    _, out, _ = call("convolve", tmp_path / "rgba.png", *layers, "--out", tmp_path / "maps.png", "--json")
    assert [row["out_shape"] for row in json.loads(out)["layers"]] == [[1, 32, 26, 38], [1, 128, 22, 36]]


def test_features_draw_every_layer_and_keep_the_numbers(call, tmp_path):
    code, out, err = call("features", "LeNet5", "digits:3", "--out", tmp_path, "--json")
    assert code == 0
    assert "fresh random weights" in err
    layers = json.loads(out)["layers"]
    assert [r["layer"] for r in layers][:3] == ["features.C1", "features.relu1", "features.S2"]
    assert all(picture(r["file"])[0] == "PNG" for r in layers)
    values = np.load(tmp_path / "features.npz")
    assert [list(v.shape) for v in values.values()] == [r["shape"] for r in layers]


def test_features_of_one_layer(call, tmp_path):
    _, out, _ = call("features", "LeNet5", "flower", "--layer", "C3", "--out", tmp_path, "--json")
    assert [r["layer"] for r in json.loads(out)["layers"]] == ["features.C3"]


def test_explain_adds_up(call):
    code, out, _ = call("explain", "LeNet5", "digits:0", "--layer", "C3", "--unit", "0,5,3,4", "--json")
    data = json.loads(out)
    assert code == 0
    assert sum(np.ravel(data["products"])) + data["bias"] == pytest.approx(data["model_value"], abs=1e-5)
    assert "the model says" in call("explain", "LeNet5", "digits:0", "--layer", "C3", "--unit", "0,5,3,4")[1]


def test_explain_follows_a_value_down_to_the_pixels(call):
    words = ["explain", "LeNet5", "digits:0", "--layer", "C3", "--unit", "0,5,3,4", "--depth", "9"]
    code, out, _ = call(*words, "--breadth", "2", "--json")
    tree = json.loads(out)
    assert code == 0
    assert (tree["op"], tree["unit"], len(tree["terms"])) == ("convolution", [0, 5, 3, 4], 2)
    code, out, _ = call(*words)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("features.C3[0, 5, 3, 4] = ")
    assert any(": input[0, 0, " in line for line in lines)


class Log(torch.nn.Module):
    def forward(self, x):
        return x.log()


def broken():
    """A network that takes the logarithm of zero."""
    return torch.nn.Sequential(torch.nn.ReLU(), Log())


def test_explain_finds_the_first_nan(call):
    assert call("explain", "LeNet5", "digits:0", "--first-nan")[1] == "no NaN, no infinity\n"
    code, out, _ = call("explain", f"{__name__}:broken", "digits:0", "--input", "1x8x8", "--first-nan")
    assert (code, out) == (0, "the first NaN or infinity comes from operator 1: log in 1\n")
    data = json.loads(call("explain", f"{__name__}:broken", "digits:0", "--input", "1x8x8", "--first-nan", "--json")[1])
    assert data == {"op": "log", "layer": "1", "index": 1}


def test_env_says_what_was_tuned(call):
    _, out, _ = call("env", "--json")
    assert {"torch", "cores", "allocator", "threads"} <= json.loads(out).keys()


def test_a_run_is_trained_measured_used_and_refused_a_second_time(call, tmp_path):
    folder = tmp_path / "run"
    assert call("train", "classify", "--epochs", 1, "--out", folder, "--json")[0] == 0
    code, out, _ = call("evaluate", folder, "--json")
    measured = json.loads(out)
    assert code == 0
    assert measured["num_images"] == 360
    assert sum(map(sum, measured["confusion"])) == 360
    assert (folder / "report.html").stat().st_size > 100_000
    _, out, err = call("predict", folder, "digits:0", "digits:1", "--top", 3, "--json")
    assert len(json.loads(out)["predictions"]) == 6
    assert "random weights" not in err
    _, out, _ = call("inspect", folder, "--json")
    assert json.loads(out)["total"]["params"] == 61_706
    code, _, err = call("train", "classify", "--epochs", 1, "--out", folder)
    assert code == 2
    assert "resume" in err


def test_resuming_keeps_the_runs_own_settings(call, tmp_path):
    folder = tmp_path / "run"
    call("train", "classify", "--epochs", 1, "--lr", 0.001, "--out", folder)
    code, out, err = call("train", "classify", "--out", folder, "--resume", "--json")
    assert (code, json.loads(out)["last_epoch"]["epoch"]) == (0, 1)
    code, out, err = call("train", "classify", "--out", folder, "--resume", "--epochs", 2)
    assert code == 2
    assert "epochs was 1 and is 2" in err


def test_a_damaged_log_is_one_sentence(call, tmp_path):
    call("train", "classify", "--epochs", 1, "--out", tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as log:
        log.write('{"epoch":')
    code, _, err = call("evaluate", tmp_path / "run")
    assert code == 2
    assert "metrics.jsonl: is damaged" in err


def test_a_run_remembers_the_shape_of_its_pictures(call, tmp_path, monkeypatch):
    """A network that does not say what it takes is trained on 224x224, and used on that without being told."""
    monkeypatch.chdir(tmp_path)
    Path("little.py").write_text(
        "from torch import nn\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.AvgPool2d(28), nn.Conv2d(3, num_classes, 8), nn.Flatten())\n"
    )
    one = ["--epochs", 1, "--set", "augment=none"]
    assert call("train", "classify", "--model", "little:net", *one, "--out", "run")[0] == 0
    assert call("predict", "run", "digits:0", "--json")[0] == 0
    code, _, err = call("evaluate", "run")
    assert (code, "wrote" in err) == (0, True)
    assert "turned, shifted and scaled" not in Path("run/report.html").read_text()


def test_a_damaged_checkpoint_is_one_sentence(call, tmp_path):
    folder = tmp_path / "run"
    call("train", "classify", "--epochs", 1, "--out", folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, _, err = call("evaluate", folder)
    assert code == 2
    assert "model.safetensors" in err
    assert "damaged" in err
    assert not (folder / "report.html").exists()
