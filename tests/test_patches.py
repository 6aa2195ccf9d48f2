"""The strongest patches against a search through all units."""

import numpy as np
import pytest
import torch
from torch import nn

from convscope.errors import DataError, InputError
from convscope.patches import patches


def test_a_planted_pattern_is_the_strongest_patch():
    pattern = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight[1, 0] = pattern - pattern.mean()
    x = torch.rand(12, 1, 10, 10, generator=torch.Generator().manual_seed(0)) * 0.2
    x[7, 0, 4:7, 2:5] = pattern
    (found,) = patches(model, x.split(5), layer="1", channels=[1], top=3)
    best = found.patches[0]
    assert (best.image, best.unit, best.box) == (7, (1, 5, 3), ((4, 6), (2, 4)))
    assert np.array_equal(best.pixels[..., 0], pattern)
    assert found.num_images == 12


@pytest.mark.parametrize("sizes", [(9,), (2, 3, 4), (1,) * 9])
def test_they_are_the_largest_maxima_whatever_the_batches(sizes):
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Conv2d(1, 3, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(3, 4, 3)),
        torch.rand(9, 1, 16, 16),
    )
    grids = patches(model, x.split(sizes), layer="2", channels=[0, 3], top=4)
    for grid in grids:
        best = model(x)[:, grid.channel].detach().flatten(1).max(1).values
        assert [p.value for p in grid.patches] == pytest.approx(
            best.sort(descending=True).values[:4].tolist(), abs=1e-5
        )
        for p in grid.patches:
            (top, bottom), (left, right) = p.box
            assert (bottom - top + 1, right - left + 1) == (9, 9) == p.pixels.shape[:2]
            assert model(x[p.image : p.image + 1])[(0, *p.unit)].item() == pytest.approx(p.value, abs=1e-5)
            for row, column in np.ndindex(9, 9):
                y, z = top + row, left + column
                inside = 0 <= y < 16 and 0 <= z < 16
                pixel = p.pixels[row, column, 0]
                assert pixel == x[p.image, 0, y, z] if inside else np.isnan(pixel)
        assert grid.picture().mode == "RGB"
        assert grid._repr_png_().startswith(b"\x89PNG")


def test_nothing_of_the_model_changes():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    patches(model, [torch.rand(2, 1, 6, 6)], layer="1", channels=[0])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training and not m._forward_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_what_does_not_fit_is_said_in_a_sentence():
    model, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.rand(2, 1, 6, 6)
    for told, call in {
        "channel 2: layer '0' has channels 0 to 1": {"channels": [2]},
        "layer 'relu': the model has no module of that name; known: 0, 1": {"layer": "relu"},
        "top is 0; use 1 or more": {"top": 0},
    }.items():
        with pytest.raises(InputError, match=told):
            patches(model, [x], **{"layer": "0", "channels": [0], **call})
    with pytest.raises(DataError, match="there are no pictures"):
        patches(model, [], layer="0", channels=[0])
