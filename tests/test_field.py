"""One place's field in words, in numbers and drawn."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from convscope.errors import InputError, ModelError
from convscope.field import field
from convscope.models import build
from convscope.table import to_json


def facts(found):
    return {row["what"]: row["value"] for row in found.table().rows}


def test_a_corner_lies_partly_in_padding():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=2, dilation=2))
    found = field(model, torch.zeros(1, 1, 12, 12), layer="1", place=(0, 5))
    assert (found.box, found.outside) == (((-3, 3), (2, 8)), 21)
    assert facts(found)["in padding"] == "21 of 49 px"
    assert facts(found)["box"] == "rows -3..3, columns 2..8"
    assert int(found.mask().sum()) == 4 * 7


def test_local_and_global_stand_side_by_side():
    found = field(build("torchvision:mobilenet_v3_small"), torch.zeros(1, 3, 96, 96), layer="features.4.block.3.1")
    assert facts(found)["size"] == "63 x 63 px"
    assert facts(found)["sees everything through"] == "features.1.block.1.avgpool, features.4.block.2.avgpool"
    assert facts(found)["depends on"] == "9,216 of 9,216 px"
    data = json.loads(to_json(found.data()))
    assert (data["size"], data["box"], data["effective"]) == ([63, 63], [[17, 79], [17, 79]], None)


def test_behind_a_global_pooling_there_is_no_box():
    found = field(build("LeNet5"), torch.zeros(1, 1, 32, 32), layer="F6", samples=1)
    assert (found.box, found.place, found.outside) == (None, (), 0)
    assert "size" not in facts(found)
    assert facts(found)["spread"].endswith("px (standard deviation)")


def test_misaligned_branches_are_said():
    class Late(nn.Module):
        def forward(self, x):
            return x[..., :-1, :-1] + nn.functional.avg_pool2d(x, 2, 1)

    model = nn.Sequential(Late(), nn.Conv2d(1, 1, 1))
    found = field(model, torch.zeros(1, 1, 8, 8), layer="1")
    assert found.notes == ("branches that look at different places are joined in 0",)


def test_the_drawing_shows_box_holes_and_padding():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=2, dilation=2))
    found = field(model, torch.zeros(1, 1, 16, 16), layer="0", place=(0, 8))
    drawn = np.asarray(found.picture())
    zoom = 640 // 18
    assert drawn.shape == (18 * zoom, 16 * zoom, 3)  # two rows of padding above
    middle = drawn[zoom // 2 :: zoom, zoom // 2 :: zoom]
    seen = (middle == (246, 193, 140)).all(axis=2)
    assert np.array_equal(seen[2:], found.mask())
    assert not seen[:2].any()
    paled = np.asarray(found.picture(np.zeros((16, 16, 3), dtype=np.float32)))[zoom // 2 :: zoom, zoom // 2 :: zoom]
    assert np.array_equal((paled == 0).all(axis=2)[2:], found.mask())


def test_the_effective_field_is_drawn_by_its_values():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, stride=4))
    found = field(model, torch.zeros(1, 1, 8, 8), layer="0", place=(1, 1), samples=1)
    assert found.effective is not None
    assert np.argwhere(found.effective.map_HW).tolist() == [[4, 4]]
    assert found.data()["effective"]["share"] == 1.0
    assert found.picture().size == (640, 640)


def test_what_is_no_picture_and_what_is_not_there():
    with pytest.raises(ModelError, match="the input has 1 axes of space, which is no picture"):
        field(nn.Sequential(nn.Conv1d(1, 1, 3)), torch.zeros(1, 1, 8), layer="0")
    with pytest.raises(InputError, match="a place in it has 2 indices, not 3"):
        field(build("LeNet5"), torch.zeros(1, 1, 32, 32), layer="C3", place=(0, 0, 0))
