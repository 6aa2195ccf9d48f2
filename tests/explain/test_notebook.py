"""What a notebook shows of a result: escaped HTML, or a PNG."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convscope import record
from convscope.explain import attribute, explain, feature_maps, kernels, statistics, trace
from convscope.patches import patches
from convscope.visualise import visualise

MODEL = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
X = torch.rand(1, 1, 8, 8)


@pytest.mark.parametrize("make", [
    lambda: attribute(MODEL, X, "occlusion"),
    lambda: feature_maps(record(MODEL, X, keep=lambda op: True))[0],
    lambda: kernels(MODEL, "0", shape=(1, 8, 8)),
    lambda: patches(MODEL, [X], layer="1", channels=[0], top=1)[0],
    lambda: visualise(MODEL, layer="1", channel=0, shape=(1, 8, 8), steps=1),
], ids=["attribution", "feature map", "kernels", "patches", "visualisation"])  # fmt: skip
def test_pictures_are_png(make):
    made = make()
    with Image.open(io.BytesIO(made._repr_png_())) as shown:
        assert shown.format == "PNG"
        assert np.array_equal(np.asarray(shown), np.asarray(made.picture()))


def test_tables_and_trees_are_escaped_html():
    model = nn.Sequential()
    model.add_module("<b>C1", nn.Conv2d(1, 2, 3))
    recording = record(model, X, keep=lambda op: True)
    told = explain(recording, "<b>C1", unit=(0, 1, 2, 3))
    tree = trace(recording, "<b>C1", unit=(0, 1, 2, 3), depth=1)
    for shown in (told, tree, statistics(model, [X], layer="<b>C1")):
        text = shown._repr_html_()
        assert "&lt;b&gt;C1" in text
        assert "<b>" not in text
    assert told._repr_html_() == told.table().html()
