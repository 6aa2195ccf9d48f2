"""One value of a network as a file: the numbers on the picture and in the .npz are those of the explanation."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convscope import record
from convscope.errors import InputError
from convscope.explain import explain
from convscope.steps import save_value
from convscope.steps.page import Box, Words
from convscope.steps.still import lay_out_value
from convscope.steps.text import figure

LAYERS = {
    "convolution": (nn.Conv2d(6, 4, 3, padding=1), (6, 5, 5), (0, 2, 0, 4)),
    "one axis": (nn.Conv1d(2, 4, 3), (2, 9), (0, 2, 3)),
    "volume": (nn.ConvTranspose3d(2, 3, 2), (2, 2, 3, 3), (0, 1, 1, 1, 2)),
    "largest": (nn.MaxPool2d(2), (1, 4, 4), (0, 0, 1, 1)),
    "linear": (nn.Linear(40, 3), (40,), (0, 2)),
    "normalisation": (nn.BatchNorm2d(2).eval(), (2, 3, 3), (0, 1, 2, 2)),
    "activation": (nn.GELU(), (3,), (0, 1)),
}


@pytest.fixture(params=LAYERS)
def told(request):
    layer, shape, unit = LAYERS[request.param]
    return explain(record(layer, torch.randn(1, *shape), keep=lambda op: True), 0, unit=unit)


def test_the_total_is_on_the_page_and_nothing_leaves_it(told):
    scene = lay_out_value(told)
    words = [i for i in scene.items if isinstance(i, Words)]
    assert any(figure(told.total) in w.text for w in words)
    for item in scene.items:
        width, height = item.size if isinstance(item, Box) else (0, 0)
        assert 0 <= item.at[0] <= item.at[0] + width <= scene.size[0]
        assert 0 <= item.at[1] <= item.at[1] + height <= scene.size[1]


def test_the_numbers_are_exact(told, tmp_path):
    with np.load(save_value(told, tmp_path / "told.npz")) as kept:
        assert kept["total"] == told.total
        assert kept["model_value"] == told.model_value
        if told.index_CKD is not None:
            np.testing.assert_array_equal(kept["products"], told.products)
            np.testing.assert_array_equal(kept["index"], told.index_CKD)
        np.testing.assert_array_equal(kept["named_parts"], [t.contribution for t in told.named])


def test_pictures_and_pages_can_be_opened(told, tmp_path):
    with Image.open(save_value(told, tmp_path / "told.png")) as picture:
        assert np.asarray(picture).std() > 0
    ElementTree.parse(save_value(told, tmp_path / "told.svg"))
    page = save_value(told, tmp_path / "told.html").read_text()
    assert "<svg" in page
    assert told.table().html() in page


def test_the_strongest_patch_is_drawn_value_by_value():
    layer, shape, unit = LAYERS["convolution"]
    told = explain(record(layer, torch.randn(1, *shape), keep=lambda op: True), 0, unit=unit)
    shown = [i.text for i in lay_out_value(told).items if isinstance(i, Words)]
    strongest = int(np.argmax(np.abs(told.channel_sums)))
    for array in (told.x_CK, told.w_CK, told.products):
        assert all(figure(v) in shown for v in array[strongest].flat)


def test_another_ending_is_refused(told, tmp_path):
    with pytest.raises(InputError, match=r"ends in .jpg, but a value is written as .png, .svg, .html or .npz"):
        save_value(told, tmp_path / "told.jpg")
