"""A run becomes a file that predicts and measures as the run does; what does not agree is not written."""

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from convscope import export as exporting
from convscope.cli import app
from convscope.data import Normalisation
from convscope.errors import DataError, InputError, RunError
from convscope.evaluate import evaluate_run
from convscope.export import export
from convscope.runs import TrainConfig
from convscope.runs.loaded import LoadedModel, load_model
from convscope.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(TrainConfig(epochs=1, batch_size=256), out=folder)
    return folder


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".fused", ".pt2"])
def test_a_run_is_exported_and_agrees(run, tmp_path, ending):
    done = export(load_model(str(run)), tmp_path / f"m{ending}")
    assert done.num_images == 64
    assert [a.output for a in done.agreement] == ["output"]
    assert done.agreement[0].relative < 1e-4
    assert done.scores is not None
    assert done.scores[0] == done.scores[1]
    assert all(f.is_file() for f in done.files)
    assert sum(f.stat().st_size for f in done.files) == done.bytes
    assert {f.suffix for f in done.files} == ({".xml", ".bin"} if ending == ".xml" else {ending})


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".fused"])
def test_an_exported_run_predicts_and_measures_as_the_run(run, tmp_path, ending):
    path = tmp_path / f"m{ending}"
    export(load_model(str(run)), path)
    words = ["--json", "digits:0", "digits:5"]
    own, other = (
        json.loads(CliRunner().invoke(app, ["predict", str(m), *words], catch_exceptions=False).stdout)
        for m in (run, path)
    )
    flat = [told["predictions"] for told in (own, other)]
    assert [c["label"] for c in flat[0]] == [c["label"] for c in flat[1]]
    assert [c["probability"] for c in flat[0]] == pytest.approx([c["probability"] for c in flat[1]], abs=1e-4)
    assert evaluate_run(path).evaluation.accuracy == evaluate_run(run).evaluation.accuracy


def test_the_command_tells_the_agreement(run, tmp_path):
    done = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "m.onnx")], catch_exceptions=False)
    assert "compared on 64 pictures" in done.stdout
    assert "as exported" in done.stdout


def fresh(model=None, **known):
    return LoadedModel("fresh", (model or nn.Conv2d(3, 2, 3)).eval(), (3, 16, 16), Normalisation(), **known)


def test_a_network_without_data_is_compared_on_photographs(tmp_path):
    done = export(fresh(), tmp_path / "m.onnx")
    assert (done.num_images, done.scores) == (2, None)
    with pytest.raises(DataError, match="no data are known to measure it on; give --data"):
        evaluate_run(tmp_path / "m.onnx")


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"m\.tflite: export to \.onnx, \.xml \(OpenVINO\), \.fused \(convscope\) or \.pt2"
    ):
        export(fresh(), tmp_path / "m.tflite")
    with pytest.raises(InputError, match="a name without an ending"):
        export(fresh(), tmp_path / "m")


class Off(nn.Module):
    """A file that gives something else than the network."""

    def forward(self, x):
        return torch.zeros(len(x), 2, 14, 14)


def test_an_export_that_does_not_agree_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "open_engine", lambda path, trusted: Off())
    with pytest.raises(
        RunError, match=r"the exported network differs by .* in output, whose largest value is .*; nothing was"
    ):
        export(fresh(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_changes_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_scores", lambda *_: (0.9, 0.8))
    with pytest.raises(RunError, match=r"scores 0\.8000 where the network scores 0\.9000"):
        export(load_model(str(run)), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
