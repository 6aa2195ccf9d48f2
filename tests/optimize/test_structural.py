"""Changed structures: factorised where that is faster, narrower with the same outputs, re-trained by the original."""

import pytest
import torch
from torch import nn

from convscope import data, models
from convscope.clock import Timing
from convscope.errors import ModelError
from convscope.optimize import bench
from convscope.optimize.candidates import LOSSLESS, NUMERIC, Candidate, Made
from convscope.optimize.measure import optimize
from convscope.optimize.result import ORIGINAL
from convscope.optimize.retrain import Teaching, distil, unlikeness
from convscope.optimize.structural import CHANGES, DENSE, Change, factorised, narrowed
from convscope.runs import TrainConfig
from convscope.runs.loaded import load_model
from convscope.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(TrainConfig(epochs=2, batch_size=256), out=folder)
    return folder


def clock(dense=1.0, **seconds):
    """A clock that runs nothing: the dense convolution takes one second, everything else half if nothing is said."""

    def told(runs, **_):
        return {name: Timing((dense if name == DENSE else seconds.get(name, 0.5),)) for name in runs}

    return told


@pytest.fixture
def separable():
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, padding=1)
    down, along = torch.randn(8, 8, 3, 1), torch.randn(1, 1, 1, 3)
    with torch.no_grad():
        conv.weight.copy_(down * along)
    return nn.Sequential(conv, nn.ReLU()).eval()


def test_a_separable_kernel_becomes_a_stack_that_gives_the_same(separable):
    x = torch.randn(2, 8, 9, 9)
    made = factorised(separable, x, clock(), error=0.01)
    assert not isinstance(made[0], nn.Conv2d)
    assert isinstance(separable[0], nn.Conv2d)  # the network itself is left alone
    torch.testing.assert_close(made(x), separable(x), atol=1e-4, rtol=1e-3)


def test_what_is_no_faster_stays_dense(separable):
    with pytest.raises(ModelError, match=r"no stack within an error of 0\.01 is faster than its convolution"):
        factorised(separable, torch.randn(1, 8, 9, 9), clock(dense=0.1), error=0.01)


@pytest.mark.parametrize("spec", ["LeNet5", "torchvision:resnet18"])
def test_a_narrower_network_has_less_work_and_the_same_outputs(spec):
    model = models.build(spec)
    x = torch.randn(1, *(models.input_shape(model, spec)))
    made = narrowed(model, x, clock(), keep=0.5)
    assert made(x).shape == model(x).shape
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, made))
    assert after < 0.5 * before


def test_a_student_comes_nearer_to_its_teacher(run):
    loaded = load_model(str(run))
    images = data.load("digits", shape=(1, 32, 32)).train
    x, _ = images.batch(torch.arange(64))
    student = narrowed(loaded.model, x, clock(), keep=0.5)

    def apart():
        with torch.no_grad():
            own, teacher = student(x), loaded.model(x)
        return unlikeness({"y": own.requires_grad_()}, {"y": teacher}).item()

    before = apart()
    distil(student, loaded.model, Teaching(images, TrainConfig(epochs=2, batch_size=64), seconds=60.0))
    assert apart() < 0.5 * before


def test_the_last_run_among_the_finalists_decides(run, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    half = Change("half", lambda *given: narrowed(*given, keep=0.5))
    monkeypatch.setattr(bench, "CHANGES", (half,))
    last = []

    def told(runs, **_):
        last[:] = runs
        final = "OpenVINO, int8" in runs and any(name.startswith("half") for name in runs)
        seconds = {ORIGINAL: 1.0, "OpenVINO, int8": 0.9 if final else 0.2}
        seconds |= {name: 0.1 if final else 0.25 for name in runs if name.startswith("half")}
        return {name: Timing((seconds.get(name, 0.3),)) for name in runs}

    found = optimize(load_model(str(run)), out=tmp_path, max_drop=100, retrain=0.02, clock=told)
    structural = [row for row in found.rows if row.stage == "structural"]
    assert structural
    assert all(row.candidate.startswith("half, ") for row in structural)
    assert {ORIGINAL, "OpenVINO, int8"} < set(last)
    assert found.kept.candidate.startswith("half, ")
    assert found.kept.final == pytest.approx(10.0)
    assert next(r for r in found.rows if r.candidate == "OpenVINO, int8").final == pytest.approx(1 / 0.9)


def changed(name, by, less=""):
    """A change that adds to all that the network gives."""
    bias = torch.zeros(10)
    bias[3] = by
    return Change(name, lambda model, batch, clock: Sequence(model, bias), less=less)


class Sequence(nn.Module):
    def __init__(self, model, bias):
        super().__init__()
        self.model, self.bias = model, bias

    def forward(self, x):
        return self.model(x) + self.bias


@pytest.fixture
def tried(run, monkeypatch):
    """What the rows of these changes say, and which of them learnt; the network as a file takes half its time."""

    def tell(*changes, **seconds):
        learnt = []

        def learn(student, teacher, teaching):
            learnt.append(float(student.bias[3]))
            return student

        file = Candidate("file", lambda m: Made(m.model, {"f": b"1"}))
        monkeypatch.setattr(bench, "STAGES", {LOSSLESS: (file,), NUMERIC: ()})
        monkeypatch.setattr(bench, "CHANGES", changes)
        monkeypatch.setattr(bench, "distil", learn)

        def told(runs, **_):
            known = {ORIGINAL: 1.0, "file": 0.5} | {f"{name}, file": taken for name, taken in seconds.items()}
            return {name: Timing((known[name],)) for name in runs}

        found = optimize(load_model(str(run)), max_drop=1.0, retrain=1.0, clock=told)
        return {row.candidate: row.why for row in found.rows if row.stage == "structural"}, learnt

    return tell


def test_what_is_no_faster_does_not_learn(tried):
    why, learnt = tried(changed("slow", 0.0), changed("quick", 0.001), slow=0.49, quick=0.4)
    assert why == {"slow": "did not learn, as it is no faster in file", "quick, file": ""}
    assert learnt == [pytest.approx(0.001)]


def test_where_a_lesser_change_costs_too_much_greater_ones_do_not_learn(tried):
    changes = (changed("mild", 1e4), changed("strong", 1.0, less="mild"), changed("strongest", 1.0, less="strong"))
    why, learnt = tried(*changes, mild=0.4, strong=0.3, strongest=0.2)
    assert why["mild, file"].startswith("less accurate, by ")
    assert why["strong"] == why["strongest"] == "did not learn, since mild cost too much already"
    assert learnt == [1e4]


def test_every_lesser_change_is_there_and_comes_before():
    names = [change.name for change in CHANGES]
    assert all(not c.less or names.index(c.less) < names.index(c.name) for c in CHANGES)
