"""Statistics of channels against numpy on all values at once, and with planted faults."""

import numpy as np
import pytest
import torch
from torch import nn

from convscope.errors import DataError, InputError
from convscope.explain.channels import statistics


def planted():
    """Four channels and their ReLU: 1 is dead, 2 is channel 0 three times as large, 3 is nobody's."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=True), nn.ReLU())
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([0.1, -1e3, 0.3, 0.0]))
        model[0].weight[2] = 3 * model[0].weight[0]
    return model


def test_dead_and_duplicate_channels_are_found():
    torch.manual_seed(0)
    found = statistics(planted(), [torch.randn(5, 1, 8, 8), torch.randn(3, 1, 8, 8)], layer="1")
    assert found.dead == (1,)
    assert found.duplicates == ((2, 0),)
    assert (found.num_images, found.places) == (8, 36)
    assert [r["remark"] for r in found.table().rows] == ["", "dead", "as channel 0", ""]


@pytest.mark.parametrize("sizes", [(7,), (1, 6), (3, 3, 1)])
def test_batches_give_the_statistics_of_all_values_at_once(sizes):
    torch.manual_seed(1)
    model, x = planted(), 5 + torch.randn(7, 1, 8, 8)
    found = statistics(model, x.split(sizes), layer="1").channels
    values = model(x).detach().double().movedim(1, 0).flatten(1).numpy()
    for c, all_ in zip(found, values, strict=True):
        want = (all_.mean(), all_.std(), all_.min(), all_.max(), (all_ == 0).mean())
        assert np.allclose((c.mean, c.std, c.min, c.max, c.zeros), want, atol=1e-9)


def test_nan_and_infinity_are_counted_and_left_out():
    x = torch.tensor([1.0, float("nan"), 3.0, float("inf")]).view(1, 1, 2, 2)
    (c,) = statistics(nn.Sequential(nn.Identity()), [x, x], layer="0").channels
    assert (c.not_finite, c.mean, c.std, c.min, c.max) == (4, 2.0, 1.0, 1.0, 3.0)


def test_no_pictures_and_no_layer_are_said():
    with pytest.raises(DataError, match="there are no pictures"):
        statistics(planted(), [], layer="1")
    with pytest.raises(InputError, match="no module of that name"):
        statistics(planted(), [], layer="relu")
