"""fastest(): what the clock says is what is chosen, it is measured once, and every machine has an answer."""

import json

import pytest
import torch
from torch import nn

from convscope.clock import Limits, Timing
from convscope.layers import DepthwiseSeparableConv, FlattenedConv, ShuffledGroupConv
from convscope.layers.fast import TOLERANCE, choose, compiled, fastest
from convscope.layers.fast.choose import DEFAULT, LAST
from convscope.layers.fast.ways import Way


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    compiled.kernels()  # from the user's own folder, where they are built already
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "convscope"


@pytest.fixture
def clock(monkeypatch):
    """Ways take the seconds that the test says; others a second. Counts what was measured."""
    seconds, measured = {}, []

    def compare(runs, **_):
        measured.append(list(runs))
        return {words: Timing((seconds.get(words, 1.0),) * 3) for words in runs}

    monkeypatch.setattr(choose, "compare", compare)
    monkeypatch.setattr(choose, "measure", lambda run, **_: Timing((1.0,)))
    monkeypatch.setattr(choose, "limits", lambda: Limits("p", 1, "2", {"float32": 1e6}, ((1, 1e9),), 1e-6))
    return seconds, measured


CONV = nn.Conv2d(32, 32, 3, padding=1)
X = torch.randn(1, 32, 8, 8)
PREPACKED = "oneDNN, prepacked"


def test_the_quickest_is_chosen_and_it_is_the_layer(clock):
    clock[0][PREPACKED] = 0.5
    choice = fastest(CONV, X)
    assert (choice.way, choice.seconds, choice.over_default, choice.over_best) == (PREPACKED, 0.5, 2.0, 2.0)
    with torch.inference_mode():
        torch.testing.assert_close(choice.module(X), CONV(X))
    assert choice.memory_format == torch.channels_last


def test_pytorchs_own_is_chosen_where_nothing_is_clearly_quicker(clock):
    clock[0].update({PREPACKED: 0.98, "own kernel, Winograd": 0.99})
    assert fastest(CONV, X).way in (DEFAULT, LAST)
    clock[0][DEFAULT] = 0.1
    choice = fastest(CONV, X, anew=True)
    assert (choice.way, choice.memory_format) == (DEFAULT, torch.contiguous_format)
    assert torch.equal(choice.module(X), CONV(X))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", [CONV, nn.MaxPool2d(2), nn.AvgPool2d(3), DepthwiseSeparableConv(32, 32, 3)])
def test_measured_for_real_it_is_never_slower_than_pytorch(layer, training):
    choice = fastest(layer, X, training=training)
    assert choice.over_best >= 1
    assert choice.seconds == min(row["seconds"] for row in choice.rows if row["way"] in (choice.way, DEFAULT, LAST))
    assert all(row["error"] <= TOLERANCE[torch.float32] for row in choice.rows)


def test_the_choice_is_kept_by_layer_shape_and_threads(clock, monkeypatch):
    clock[0][PREPACKED] = 0.5
    first = fastest(CONV, X)
    again = fastest(CONV, X)
    assert (again.way, again.rows, again.notes) == (first.way, first.rows, first.notes)
    assert len(clock[1]) == 1
    fastest(CONV, torch.randn(2, 32, 8, 8))
    fastest(nn.Conv2d(32, 32, 3), X)
    fastest(CONV, X, training=True)
    assert len(clock[1]) == 4
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    fastest(CONV, X)
    assert len(clock[1]) == 5


def test_a_damaged_or_outdated_choice_is_measured_again(clock, empty_cache):
    fastest(CONV, X)
    (file,) = empty_cache.glob("fastest-*.json")
    kept = json.loads(file.read_text())
    for data in ({}, {"way": "gone"}, {"rows": [{}]}, {"rows": []}, {"notes": None}):
        file.write_text(json.dumps(kept | {"data": kept["data"] | data if data else data}))
        before = len(clock[1])
        fastest(CONV, X)
        assert len(clock[1]) == before + 1, data


def test_a_way_that_is_wrong_is_left_out_and_said(clock, monkeypatch):
    class Wrong(nn.Module):
        def forward(self, x):
            return CONV(x) + 1e-2

    monkeypatch.setattr(choose, "ways", lambda *_, **__: [Way("wrong", Wrong)])
    clock[0]["wrong"] = 1e-9
    choice = fastest(CONV, X)
    assert choice.way in (DEFAULT, LAST)
    assert any(note.startswith("wrong: left out, its error is") for note in choice.notes)


def test_nan_is_no_equal(clock, monkeypatch):
    monkeypatch.setattr(choose, "ways", lambda *_, **__: [Way("wrong", lambda: nn.Threshold(1e9, float("nan")))])
    assert any(note.startswith("wrong: left out") for note in fastest(nn.Identity(), X).notes)


def test_a_way_whose_arithmetic_alone_takes_longer_is_not_tried(clock, monkeypatch):
    monkeypatch.setattr(choose, "ways", lambda *_, **__: [Way("much", lambda: CONV, macs=10**9)])
    assert "much: left out, its arithmetic alone takes longer" in fastest(CONV, X).notes


def test_without_a_compiler_the_rest_is_tried_and_it_is_said(clock, monkeypatch):
    monkeypatch.setattr(compiled, "_built", lambda: (None, "there is no g++"))
    choice = fastest(DepthwiseSeparableConv(32, 32, 3), X)
    assert "no own kernels: there is no g++" in choice.notes
    assert not any("own kernel" in row["way"] for row in choice.rows)
    assert {DEFAULT, LAST} <= {row["way"] for row in choice.rows}


def test_bfloat16_is_tried_where_it_is_allowed_alone(clock):
    half = "PyTorch, bfloat16, channels last"
    assert half not in {row["way"] for row in fastest(CONV, X).rows}
    clock[0][half] = 0.1
    choice = fastest(CONV, X, dtypes=(torch.float32, torch.bfloat16))
    assert choice.way == half
    assert choice.module(X).dtype == torch.float32


@pytest.mark.parametrize("layer", [FlattenedConv(32, 32, 3, padding=1), ShuffledGroupConv(32, 32, 3, groups=4)])
def test_a_stack_runs_each_part_in_its_own_way(clock, layer):
    clock[0]["each part in its own way"] = 0.5
    choice = fastest(layer, X)
    assert choice.way == "each part in its own way"
    with torch.inference_mode():
        torch.testing.assert_close(choice.module(X), layer(X), atol=1e-5, rtol=1e-4)


def test_the_module_trains_apart_from_the_layer(clock):
    clock[0]["own kernel, Winograd"] = 0.5
    choice = fastest(CONV, X, training=True)
    before = CONV.weight.detach().clone()
    optimizer = torch.optim.SGD(choice.module.parameters(), lr=0.1)
    choice.module(X).square().mean().backward()
    optimizer.step()
    assert torch.equal(CONV.weight, before)
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in choice.module.parameters())


def test_other_axes_and_dtypes_have_pytorchs_ways_alone(clock):
    assert [row["way"] for row in fastest(nn.Conv1d(2, 2, 3), torch.randn(1, 2, 9)).rows] == [DEFAULT]
    double = fastest(nn.Conv2d(4, 4, 3).double(), torch.randn(1, 4, 9, 9, dtype=torch.float64))
    assert {row["way"] for row in double.rows} == {DEFAULT, LAST}


def test_the_table_shows_the_quickest_first(clock):
    clock[0].update({PREPACKED: 0.5, LAST: 0.7})
    table = fastest(CONV, X).table()
    assert [row["way"] for row in table.rows][:2] == [PREPACKED, LAST]
    assert str(table).startswith("chosen: oneDNN, prepacked\nway")
