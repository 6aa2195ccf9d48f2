"""A visualisation makes its channel fire as no other picture does."""

import pytest
import torch
from torch import nn

from convscope import data
from convscope.errors import InputError
from convscope.models import LeNet5
from convscope.visualise import ascent, visualise


def test_it_beats_every_picture_of_the_data_set():
    digits = data.load("digits", shape=(1, 32, 32))
    torch.manual_seed(0)
    model = LeNet5().eval()
    climb = torch.optim.Adam(model.parameters(), lr=2e-3)
    for at in torch.randperm(len(digits.train)).split(64):
        x, labels = digits.train.batch(at)
        climb.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        climb.step()
    made = visualise(
        model, layer="C3", channel=5, shape=(1, 32, 32), steps=60, normalise=digits.train.normalisation
    )  # fmt: skip
    with torch.no_grad():
        x = torch.from_numpy(made.pixels).movedim(-1, 0)[None]
        own = model.features[:4](digits.train.normalisation(x))[0, 5].mean()
        seen = torch.cat([digits.train.batch(torch.arange(1293))[0], digits.test.batch(torch.arange(360))[0]])
        rest = model.features[:4](seen)[:, 5].mean((1, 2))
    assert made.activation == pytest.approx(float(own), rel=1e-4)
    assert made.activation > float(rest.max())
    assert 0 <= made.pixels.min() <= made.pixels.max() <= 1
    assert made.picture().mode == "RGB"


def test_the_seed_decides_and_nothing_of_the_model_changes():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    one, same, other = (
        visualise(model, layer="1", channel=1, shape=(1, 8, 8), steps=5, seed=s).pixels for s in (0, 0, 1)
    )
    assert (one == same).all()
    assert (one != other).any()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training and not m._forward_hooks for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_whoever_watches_can_stop():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    climbing = ascent(model, layer="0", channel=0, shape=(1, 8, 8), steps=1000)
    last = [next(climbing) for _ in range(4)][-1]
    climbing.close()
    assert last.steps == 3
    assert all(p.requires_grad for p in model.parameters())


def test_what_does_not_fit_is_said_in_a_sentence():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    for told, call in {
        "channel 2: layer '0' has channels 0 to 1": {"channel": 2},
        "no module of that name": {"layer": "C1"},
        "needs steps >= 1": {"steps": 0},
    }.items():
        with pytest.raises(InputError, match=told):
            visualise(model, **{"layer": "0", "channel": 0, "shape": (1, 8, 8), "steps": 1, **call})
