"""A person sees what `optimize` does: a line a candidate, a bar on a terminal; Ctrl-C ends it and leaves nothing."""

import io
import os
import re
import signal
import subprocess
import sys

import pytest
from torch import nn

from convscope.data import Normalisation
from convscope.engines import quiet
from convscope.optimize import bench, optimize
from convscope.optimize.candidates import LOSSLESS, NUMERIC, Candidate, Made
from convscope.optimize.progress import shown
from convscope.runs import TrainConfig
from convscope.runs.loaded import LoadedModel
from convscope.train import train


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def drawn(self):
        """Without its colours."""
        return re.sub(r"\x1b\[\d*m", "", self.getvalue())


@pytest.fixture
def network(monkeypatch):
    """One with two candidates, of which one gives something else."""
    other = Candidate("other", lambda m: Made(nn.Sequential(m.model, nn.Hardtanh(5, 6))))
    stages = {LOSSLESS: (Candidate("same", lambda m: Made(m.model)), other), NUMERIC: ()}
    monkeypatch.setattr(bench, "STAGES", stages)
    return LoadedModel("fresh", nn.Conv2d(3, 2, 3).eval(), (3, 16, 16), Normalisation())


def test_elsewhere_than_on_a_terminal_each_candidate_is_a_line(network, capsys):
    optimize(network)
    said = capsys.readouterr()
    assert said.out == ""
    first, second = said.err.splitlines()
    assert re.fullmatch(r"1/2  same  \d+\.\d s", first)
    assert re.fullmatch(r"2/2  other  \d+\.\d s  not equal", second)
    optimize(network, progress=False)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_says_what_is_done(network, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    optimize(network)
    drawn = terminal.drawn()
    for text in ("1/2 same: compared", "2/2 other", "2/2 1 forms and the network are timed in turns"):
        assert text in drawn
    assert drawn.endswith("\x1b[2K")  # the bar is gone in the end


def test_the_bar_goes_on_while_engines_are_kept_quiet(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with shown(quiet=False) as progress:
        progress.total = 3
        progress.begin("int8")
        with quiet():
            progress.doing("layers are sought")
            progress.learning(0.5)
        assert "1/3 int8: layers are sought" in terminal.drawn()
        assert "1/3 int8: learning, 50%" in terminal.drawn()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(TrainConfig(epochs=1, batch_size=512), out=folder, progress=False)
    return folder


def _heard():
    """In the background of a shell Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_it_and_leaves_nothing(run, tmp_path):
    words = [sys.executable, "-m", "convscope", "optimize", str(run), "--out", str(tmp_path / "new" / "out")]
    environment = os.environ | {"CXX": "no-such-compiler"}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    given["preexec_fn"] = _heard
    with subprocess.Popen(words, **given) as process:
        assert process.stderr is not None
        assert any(line.startswith("1/18  ") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert not [line for line in process.stderr if "Error" in line]
        assert process.wait(60) == 130
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert not (tmp_path / "new").exists()
