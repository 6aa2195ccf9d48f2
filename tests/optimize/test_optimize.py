"""What is tried is compared, scored and timed; what is kept helps, and is a file that predicts."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from convscope.cli import app
from convscope.clock import Timing
from convscope.data import Normalisation
from convscope.engines.openvino import core
from convscope.errors import DataError, InputError, need
from convscope.files import write_figure
from convscope.models import Candidates
from convscope.optimize import bench
from convscope.optimize.candidates import LOSSLESS, NUMERIC, STAGES, Candidate, InBatches, Made, Material, each_picture
from convscope.optimize.measure import optimize
from convscope.optimize.pictures import pareto
from convscope.optimize.result import ORIGINAL, chosen
from convscope.runs import TrainConfig
from convscope.runs.loaded import LoadedModel, load_model
from convscope.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(TrainConfig(epochs=2, batch_size=256), out=folder)
    return folder


def fresh(model=None, **known):
    torch.manual_seed(0)
    return LoadedModel("fresh", (model or nn.Conv2d(3, 2, 3)).eval(), (3, 16, 16), Normalisation(), **known)


def told(**seconds):
    """A clock that runs nothing and tells these seconds; the network takes one second, others as long."""

    def clock(runs, **_):
        return {name: Timing((seconds.get(name.replace(" ", "_"), 1.0),)) for name in runs}

    return clock


class Off(nn.Module):
    """The network, and something added to all it gives."""

    def __init__(self, model, by):
        super().__init__()
        self.model, self.by = model, by

    def forward(self, x):
        return self.model(x) + self.by


def candidate(name, by=0.0, *, file=True):
    files = {f"{name}.bin": b"12", f"{name}.xml": b"345"} if file else None
    return Candidate(name, lambda m: Made(Off(m.model, by), files))


@pytest.fixture
def stages(monkeypatch):
    """Sets the candidates."""

    def put(*lossless, numeric=()):
        monkeypatch.setattr(bench, "STAGES", {LOSSLESS: lossless, NUMERIC: numeric})

    return put


def verdicts(found):
    return {row["candidate"]: row["verdict"] for row in found.table().rows}


# Choosing


def test_the_fastest_that_helps_is_kept_and_the_others_say_why_not(stages, tmp_path):
    names = ("fast", "faster", "equal", "slow", "other", "nan")
    stages(*(candidate(n, by={"other": 1.0, "nan": float("nan")}.get(n, 0.0)) for n in names))
    found = optimize(fresh(), out=tmp_path, clock=told(fast=0.5, faster=0.25, equal=0.98, slow=1.5, other=0.1, nan=0.1))
    assert verdicts(found) == {
        ORIGINAL: "", "fast": "helps", "faster": "kept", "equal": "no faster", "slow": "slower", "other": "not equal",
        "nan": "not equal",
    }  # fmt: skip
    assert [f.name for f in found.files] == ["faster.bin", "faster.xml"]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["faster.bin", "faster.xml"]
    assert (tmp_path / "faster.xml").read_bytes() == b"345"
    row = next(r for r in found.rows if r.candidate == "faster")
    assert (row.ratio, row.bytes, row.seconds, row.difference) == (4.0, 5, 0.25, 0.0)
    assert "kept: faster, 4.00 times as fast" in str(found.table())


def test_what_no_file_holds_is_told_but_not_kept(stages, tmp_path):
    stages(candidate("inside", file=False), candidate("outside"))
    found = optimize(fresh(), out=tmp_path, clock=told(inside=0.25, outside=0.5))
    assert verdicts(found) == {ORIGINAL: "", "inside": "helps, in this process alone", "outside": "kept"}
    assert "inside, which no file holds, is 2.00 times as fast" in str(found.table())
    stages(candidate("inside", file=False))
    found = optimize(fresh(), out=tmp_path / "none", clock=told(inside=0.25))
    assert (found.kept, found.files) == (None, ())
    assert "lives in a process of PyTorch alone (inside): no file was written" in str(found.table())


def test_where_nothing_helps_the_network_is_kept(stages, tmp_path):
    stages(candidate("slow"))
    found = optimize(fresh(), out=tmp_path / "out", clock=told(slow=2.0))
    assert found.files == ()
    assert "nothing helps: the network is kept as it is" in str(found.table())
    assert chosen(found.rows) is None


def test_accuracy_allows_or_refuses(run, stages, tmp_path):
    uneven = torch.zeros(10)
    uneven[3] = 1e4  # everything becomes a three
    stages(numeric=(candidate("wrong", uneven), candidate("right", 1.0)))
    found = optimize(load_model(str(run)), out=tmp_path, clock=told(wrong=0.1, right=0.5))
    assert verdicts(found)["wrong"].startswith("less accurate, by ")
    assert verdicts(found)["right"] == "kept"
    by_name = {r.candidate: r for r in found.rows}
    assert by_name["right"].agreement == 1
    assert by_name["right"].score == by_name[ORIGINAL].score
    assert by_name["wrong"].score < 0.2
    stages(numeric=(candidate("wrong", uneven),))
    found = optimize(load_model(str(run)), max_drop=100, clock=told(wrong=0.1))
    assert verdicts(found)["wrong"] == "kept"


def test_without_data_only_what_gives_the_same_is_tried(stages):
    stages(candidate("same"), numeric=(candidate("rounded", 1e-3),))
    found = optimize(fresh(), clock=told(same=0.5))
    assert "rounded" not in verdicts(found)
    assert "no data are known, so only what gives the same was tried; give --data" in str(found.table())


# The real candidates


@pytest.fixture(scope="module")
def measured(run, tmp_path_factory):
    """A run optimised with every candidate but the compiler, which takes its time; the clock says OpenVINO."""
    patch = pytest.MonkeyPatch()
    patch.setenv("CXX", "no-such-compiler")
    try:
        out = tmp_path_factory.mktemp("out")
        clock = told(**{"OpenVINO,_int8": 0.1, "OpenVINO,_bfloat16": 0.2, "ONNX_Runtime": 0.9})
        return optimize(load_model(str(run)), out=out, max_drop=5, batch_size=3, clock=clock)
    finally:
        patch.undo()


def test_every_candidate_runs_or_says_why_not(measured):
    rows = {r.candidate: r for r in measured.rows}
    assert set(rows) == {ORIGINAL} | {c.name for candidates in STAGES.values() for c in candidates}
    assert rows["torch.compile, frozen"].why == "torch.compile: needs a C++ compiler; install g++, or name one in CXX"
    for name in ("PyTorch, channels last", "fused convolutions", "ONNX Runtime", "OpenVINO"):
        assert rows[name].difference < 1e-4
        assert rows[name].score == rows[ORIGINAL].score
    assert rows["OpenVINO, int8"].bytes < 0.6 * rows["OpenVINO"].bytes
    assert 0 < rows["OpenVINO, int8"].difference < 0.5
    assert rows["OpenVINO, int8"].agreement > 0.9


def test_the_kept_file_is_a_model_that_predicts_as_the_row_says(measured):
    graph = measured.files[0]
    assert [f.name for f in measured.files] == ["model.xml", "model.bin"]
    done = CliRunner().invoke(app, ["evaluate", str(graph), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["accuracy"] == measured.kept.score
    compiled = core().compile_model(str(graph), "CPU")
    assert compiled(torch.zeros(1, 1, 32, 32).numpy())[0].shape == (1, 10)


def test_a_bfloat16_file_computes_so_when_it_is_opened(run, tmp_path):
    found = optimize(load_model(str(run)), out=tmp_path, max_drop=5, clock=told(**{"OpenVINO,_bfloat16": 0.1}))
    engine = load_model(str(found.files[0])).model
    assert engine.card.precision == "bf16"
    assert str(engine.compiled.get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'bfloat16'>"


def test_the_picture_has_a_point_a_candidate(measured, stages, tmp_path):
    with Image.open(write_figure(pareto(measured), tmp_path / "p.png")) as picture:
        assert picture.width > 1000
    text = write_figure(pareto(measured), tmp_path / "p.svg").read_text()
    assert "OpenVINO, int8 (kept)" in text
    stages(candidate("same"))
    assert write_figure(pareto(optimize(fresh(), clock=told(same=0.5))), tmp_path / "d.svg").exists()


def test_batches_are_filled_up_and_cut():
    sizes = []

    class Spy(nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return x.sum((1, 2, 3))

    x = torch.randn(7, 1, 2, 2)
    torch.testing.assert_close(InBatches(Spy(), 3, each={"output"})(x), x.sum((1, 2, 3)))
    assert sizes == [3, 3, 3]


def test_outputs_that_belong_to_no_picture_are_given_once():
    """A detector's places are as many as its pictures here, so that their number tells nothing."""
    places = torch.arange(14.0).view(7, 2)

    class Detector(nn.Module):
        def forward(self, x):
            each = x.flatten(1)
            return Candidates(each[:, :7, None], each[:, :28].view(-1, 7, 4), places, places[:, 0])

    x = torch.randn(7, 1, 6, 6)
    assert each_picture(Detector(), x) == {"logits", "boxes"}
    found = InBatches(Detector(), 2, each=each_picture(Detector(), x))(x)
    assert isinstance(found, Candidates)
    for own, other in zip(Detector()(x), found, strict=True):
        torch.testing.assert_close(own, other)


# What is missing, or does not fit


class Branching(nn.Module):
    """Neither torch.fx nor an exporter can follow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        y = self.conv(x)
        return y if y.sum() > 0 else -y


def test_a_network_that_cannot_be_exported_leaves_the_other_ways(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = optimize(fresh(Branching()), clock=told(**{"PyTorch,_channels_last": 0.5}))
    said = verdicts(found)
    assert said["PyTorch, channels last"] == "helps, in this process alone"
    assert "torch.export cannot follow the network" in said["fused convolutions"]
    assert said["OpenVINO"].startswith("export: the network cannot be exported to ONNX (")
    assert said["ONNX Runtime"] == said["OpenVINO"]


def test_what_is_not_installed_is_said_and_the_rest_goes_on(run, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setitem(need.__globals__, "find_spec", lambda name: None)
    said = verdicts(optimize(load_model(str(run)), clock=told(**{"PyTorch,_channels_last": 0.5})))
    assert said["OpenVINO"] == "openvino: not installed; pip install 'convscope[export]'"
    assert said["OpenVINO, int8"] == "openvino and nncf: not installed; pip install 'convscope[optimize]'"
    assert "helps" in said["PyTorch, channels last"]


def test_data_that_do_not_fit_are_one_sentence(run, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("RGB", (40, 40), (i, 0, 9)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(DataError, match=r"has classes cat, dog, but .* learnt 0, 1, 2"):
        optimize(load_model(str(run)), data=str(tmp_path))


def test_an_exported_network_is_sent_back():
    with pytest.raises(InputError, match=r"m\.onnx: is an exported network already; give the network that it was made"):
        optimize(LoadedModel("m.onnx", nn.Identity(), (3, 8, 8), Normalisation()))


def test_calibration_needs_pictures():
    material = Material(nn.Conv2d(3, 2, 3).eval(), torch.zeros(1, 3, 8, 8), fresh().card(("output",)))
    int8 = next(c for c in STAGES[NUMERIC] if c.name == "OpenVINO, int8")
    with pytest.raises(DataError, match="there are no pictures to find the ranges on; give --data"):
        int8.make(material)


def test_the_command_tells_all(stages, tmp_path, monkeypatch):
    stages(candidate("same"))
    monkeypatch.chdir(tmp_path)
    words = ["optimize", "LeNet5", "--plot", "p.svg", "--json", "--out", "o", "--batch-size", "2"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    data = json.loads(done.stdout)
    assert [r["candidate"] for r in data["rows"]] == [ORIGINAL, "same"]
    assert data["batch_size"] == 2
    assert (tmp_path / "p.svg").exists()
    with pytest.raises(InputError, match="let the name end in one of them"):
        CliRunner().invoke(app, ["optimize", "LeNet5", "--plot", "p.bmp"], catch_exceptions=False)


IMPORTS = """
import sys
from convscope.engines.openvino import openvino
openvino()
assert "openvino.tools.ovc.telemetry_stub" in sys.modules
assert sys.modules["openvino_telemetry"] is None
"""


def test_openvino_is_kept_from_reporting():
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
