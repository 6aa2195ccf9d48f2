"""`convscope profile` from the shell."""

import json

import pytest
from typer.testing import CliRunner

from convscope import clock
from convscope.cli import app
from convscope.clock import Limits
from convscope.errors import InputError

LIMITS = Limits("a machine", 1, "1.0", {"float32": 1e11}, ((2**18, 1e11), (2**28, 3e10)), 1e-6)


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clock, "limits", lambda: LIMITS)
    return lambda *words: CliRunner().invoke(app, ["profile", *words], catch_exceptions=False)


def test_every_operator_is_timed_and_the_pictures_are_drawn(call, tmp_path):
    done = call("LeNet5", "--rounds", "3", "--json", "--advice", "--roofline", "r.svg", "--flame", "f.png")
    told = json.loads(done.stdout)
    assert [o["module"] for o in told["operators"][:3]] == ["features.C1", "features.relu1", "features.S2"]
    assert told["operators"][0]["macs"] == 117_600
    assert all(o["inside"]["median"] > 0 and o["alone"]["median"] > 0 for o in told["operators"])
    assert told["limits"]["processor"] == "a machine"
    assert isinstance(told["advice"], list)
    assert (tmp_path / "r.svg").exists()
    assert (tmp_path / "f.png").exists()


def test_the_table_is_as_long_as_was_asked_for(call):
    text = call("LeNet5", "--rounds", "3", "--top", "2", "--batch-size", "2").stdout
    assert text.startswith("LeNet5, batch 2\n")
    assert "more operators: " in text
    assert "the whole network: " in text
    assert "what would help" not in text


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(call, tmp_path):
    folder = tmp_path / "f.svg"
    folder.mkdir()
    with pytest.raises(InputError, match="is a folder"):
        call("LeNet5", "--flame", folder)
    with pytest.raises(InputError, match="let the name end in one of them"):
        call("LeNet5", "--flame", "f.bmp")
