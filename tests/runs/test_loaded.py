"""Models by name or run, and pictures as they enter them."""

import numpy as np
import pytest
import torch

from convscope.data import digits
from convscope.data.images import Picture
from convscope.data.named import open_picture
from convscope.errors import ImageError, ModelError
from convscope.runs.loaded import IMAGENET, load_model


def test_a_test_digit_enters_the_network_as_it_did_in_training():
    test = digits().test
    x, notes = load_model("LeNet5").prepare(open_picture("digits:7"))
    torch.testing.assert_close(x, test.batch(torch.tensor([7]))[0])
    assert notes == ()


def test_a_photograph_is_brought_to_the_networks_size_and_channels_and_that_is_said():
    x, notes = load_model("LeNet5").prepare(open_picture("flower"))
    assert x.shape == (1, 1, 32, 32)
    assert any("resized from 427x640 to 32x32" in n for n in notes)
    assert len(notes) == 2


def test_torchvision_models_take_imagenets_normalisation():
    loaded = load_model("torchvision:resnet18")
    picture = Picture(np.full((224, 224, 3), 0.5, np.float32), "RGB", "grey")
    x, _ = loaded.prepare(picture)
    expected = (0.5 - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)
    torch.testing.assert_close(x[0, :, 5, 5], expected)


def test_outputs_without_names_are_numbered():
    assert load_model("LeNet5").class_names() == tuple("0123456789")
    loaded = load_model("LeNet5")
    loaded.model.double()
    assert loaded.class_names() == tuple("0123456789")
    with pytest.raises(ModelError, match="is no classifier"):
        load_model("torch.nn:Identity", shape=(1, 4, 4)).class_names()


@pytest.mark.parametrize("name", ["digits:", "digits:x", "digits:360", "digits:-1"])
def test_a_digit_that_is_not_there(name):
    with pytest.raises(ImageError, match="use digits:0 to digits:359"):
        open_picture(name)
