"""Misaligned branches against the centre of gravity that a gradient has."""

import copy

import pytest
import torch
from networks import Branches
from torch import nn

from convscope import record
from convscope.inspect import misaligned


class Crop(nn.Module):
    def forward(self, x):
        return x[..., :-1, :-1]


def even(k, before):
    """A kernel of even size whose padding keeps the size: `before` elements before, the rest behind."""
    return nn.Sequential(nn.ZeroPad2d((before, k - 1 - before) * 2), nn.Conv2d(1, 1, k))


PLANTED = {
    "even kernel, padding behind": (Branches(nn.Identity(), even(2, 0)), (0.5, 0.5)),
    "even kernel, padding before": (Branches(nn.Identity(), even(4, 2)), (-0.5, -0.5)),
    "shortcut without padding": (
        Branches(nn.Conv2d(1, 1, 3, 2), nn.Sequential(nn.Conv2d(1, 1, 1, 2), Crop())), (-1.0, -1.0)),
    "behind a stride": (
        nn.Sequential(nn.Conv2d(1, 1, 3, 4, 1), Branches(nn.Identity(), even(2, 0))), (2.0, 2.0)),
    "one axis": (Branches(nn.Identity(), nn.Conv2d(1, 1, (1, 3), padding=(0, 1)), even(1, 0)), None),
    "odd kernels": (Branches(nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 1, 2), nn.Conv2d(1, 1, 5, 2, 2)), None),
    "phases that make up for each other": (
        Branches(nn.Identity(), nn.Sequential(nn.AvgPool2d(2), nn.ConvTranspose2d(1, 1, 2, 2))), None),
    "up-sampled from the wrong places": (
        Branches(nn.Identity(), nn.Sequential(nn.MaxPool2d(1, 2), nn.ConvTranspose2d(1, 1, 2, 2))), (-0.5, -0.5)),
}  # fmt: skip


def centre(model, x, unit):
    """The centre of the rows and columns with a gradient: all weights are one, so all of a window counts alike."""
    x = x.clone().requires_grad_()
    places = torch.autograd.grad(model(x)[unit], x)[0][0, 0].nonzero().double()
    return (places.amin(0) + places.amax(0)) / 2


@pytest.mark.parametrize("name", PLANTED)
def test_planted(name):
    model, apart = PLANTED[name]
    found = misaligned(
        record(model, torch.zeros(1, 1, 33 if "shortcut" in name else 32, 33 if "shortcut" in name else 32))
    )
    assert found.joins >= 1
    assert [m.apart for m in found.found] == ([] if apart is None else [apart])
    assert found.data()["joins"] == found.joins


def test_a_sentence_for_each_join_and_of_many_a_few():
    joins = [Branches(nn.Identity(), even(2, 0)) for _ in range(6)]
    told = misaligned(record(nn.Sequential(*joins), torch.zeros(1, 1, 16, 16))).sentences
    assert len(told) == 5
    assert told[0].startswith("0: joins branches that look at different places, 0.5x0.5 px apart (")
    assert told[-1] == "2 more joins are like that"


@pytest.mark.parametrize("name", [n for n in PLANTED if "stride" not in n])
def test_the_centres_of_the_gradients_lie_as_far_apart(name):
    model, apart = PLANTED[name]
    model = copy.deepcopy(model).double()
    for p in model.parameters():
        p.data = torch.ones_like(p)
    x = torch.ones(1, 1, 33, 33, dtype=torch.float64) if "shortcut" in name else torch.ones(1, 1, 32, 32).double()
    units = [(0, 0, r, c) for r in (7, 8) for c in (7, 8)]  # both phases
    first, last = (
        torch.stack([centre(b, x, u) for u in units]).mean(0) for b in (model.branches[0], model.branches[1])
    )
    assert tuple((last - first).tolist()) == (apart or (0.0, 0.0))


def test_everything_has_no_centre():
    class Gate(nn.Module):
        def forward(self, x):
            return x * x.mean((2, 3), keepdim=True)

    assert misaligned(record(Gate(), torch.zeros(1, 1, 8, 8))).found == ()


def test_the_table_says_which_join_and_which_branches():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), PLANTED["even kernel, padding behind"][0])
    text = str(misaligned(record(model, torch.zeros(1, 1, 32, 32))))
    assert "1x1" in text
    assert "1.branches.1.1" in text
    assert "joins of local branches were compared" in text
