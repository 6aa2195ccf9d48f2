"""What the server says, held to the package: maps in their orders, units of every kind of operator."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from convscope.explain import explain
from convscope.graph import record
from convscope.inspect import receptive_field, summarize
from convscope.lab.answers import CHANNELS, TERMS, packed, unit_facts
from convscope.lab.maps import maps_of
from convscope.lab.session import Look


def look_of(model, x):
    recording = record(model.eval(), x, keep=lambda op: True)
    return Look(recording, summarize(recording), "")


class Several(nn.Module):
    """One operator of each kind that the page draws in its own way."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 40, 3, padding=1)
        self.norm = nn.BatchNorm2d(40)
        self.pool = nn.MaxPool2d(2)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.deep = nn.Conv3d(1, 2, 3)
        self.line = nn.Conv1d(1, 2, 3)
        self.head = nn.Linear(40, 1000)

    def forward(self, x):
        y = self.mean(torch.relu(self.pool(self.norm(self.conv(x)))))
        self.deep(x[:, None])
        self.line(x[:, 0, :1])
        return torch.softmax(self.head(y.flatten(1)), 1)


@pytest.fixture(scope="module")
def look():
    torch.manual_seed(0)
    return look_of(Several(), torch.randn(1, 3, 16, 16))


def test_units_of_every_operator_agree_with_explain(look):
    kinds = set()
    for op in look.recording.ops:
        unit = tuple(n // 2 for n in op.outputs[0].shape)
        facts = json.loads(packed(unit_facts(look, op, unit), np.zeros(0)).body[4:])
        assert facts["value"] == pytest.approx(float(look.recording.tensors[op.outputs[0].id][unit]))
        box = receptive_field(look.recording, op, unit=unit) if op.inputs else None
        assert facts["box"] == (None if box is None else [list(axis) for axis in box])
        told = explain(look.recording, op, unit=unit)
        assert facts["told"]["total"] == pytest.approx(told.total)
        parts = [t["part"] for t in facts["told"]["named"]]
        if "matrices" in facts["told"]:
            kinds.add("matrices")
            assert len(facts["told"]["matrices"]) == min(CHANNELS, len(told.x_CK))
            if told.combine == "sum":
                assert sum(facts["told"]["channel_sums"]) + sum(parts) == pytest.approx(told.total)
        elif "largest" in facts["told"]:
            kinds.add("terms")
            largest = [t["part"] for t in facts["told"]["largest"]]
            assert len(largest) <= TERMS
            assert sum(largest) + facts["told"]["rest"] + sum(parts) == pytest.approx(told.total)
        else:
            kinds.add("named")
    assert kinds == {"matrices", "terms", "named"}


def test_a_channel_can_be_asked_for(look):
    op = look.recording.find("pool")
    conv = look.recording.find("conv")
    facts = unit_facts(look, conv, (0, 3, 5, 5), channel=2)
    assert facts["told"]["matrices"][0]["channel"] == 2
    winner = unit_facts(look, op, (0, 3, 2, 2))["told"]["matrices"][0]
    patch = np.array(winner["patch"])
    assert patch[tuple(winner["winner"])] == patch.max()


@pytest.mark.parametrize("by", ["index", "max", "variance"])
def test_maps_come_in_their_order(look, by):
    op = look.recording.find("conv")
    values = look.recording.tensors[op.outputs[0].id][0].numpy()
    head, sent = maps_of(look.recording, op).page(0, by=by)
    assert np.array_equal(sent, values[head["index"]])
    if by == "index":
        assert head["index"] == list(range(40))
    else:
        of = {"max": values.max((1, 2)), "variance": values.astype(np.float64).var((1, 2))}[by]
        assert of[head["index"]].tolist() == sorted(of.tolist(), reverse=True)
        assert head[by] == pytest.approx(of[head["index"]])
    assert head["limit"] == pytest.approx(np.abs(values).max())


def test_every_place_of_the_maps_is_a_unit(look):
    for layer in ("conv", "deep", "head", "line"):
        op = look.recording.find(layer)
        tensor = look.recording.tensors[op.outputs[0].id]
        maps = maps_of(look.recording, op)
        for m, row, column in [(0, 0, 0), tuple(n - 1 for n in maps.values_MHW.shape)]:
            if maps.wrapped:
                unit = (0, row * maps.wrapped + column)
            else:
                unit = (*(int(i) for i in np.unravel_index(m, maps.lead)), row, column)
            assert maps.values_MHW[m, row, column] == tensor[unit].item()


def test_what_has_no_maps_says_so(look):
    one = look_of(Scalar(), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="has no rows and columns; choose another layer"):
        maps_of(one.recording, one.recording.ops[0])


class Scalar(nn.Module):
    def forward(self, x):
        return x.sum()
