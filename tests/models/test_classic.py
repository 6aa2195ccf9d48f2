"""The two classic networks against the published facts."""

import pytest
import torch
from torch import nn

from convscope.errors import ModelError
from convscope.models import MODELS, ConvNet3, LeNet5, build, input_shape

GOLDEN_SOFTMAX = [0.1055, 0.0958, 0.1093, 0.0939, 0.0942, 0.0990, 0.1092, 0.0956, 0.0874, 0.1102]


def test_lenet5_under_seed_1_gives_the_golden_softmax():
    torch.manual_seed(1)
    model = LeNet5()
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(model(x).softmax(1)[0], torch.tensor(GOLDEN_SOFTMAX), atol=5e-5, rtol=0)


def test_lenet5_layers_stand_in_the_published_order_and_size():
    x, shapes = torch.zeros(1, 1, 32, 32), {}
    model = LeNet5()
    for part in (model.features, model.head):
        for name, layer in part.named_children():
            x = layer(x)
            shapes[name] = tuple(x.shape[1:])
    assert shapes["C1"] == (6, 28, 28)
    assert shapes["S2"] == (6, 14, 14)
    assert shapes["C3"] == (16, 10, 10)
    assert shapes["S4"] == (16, 5, 5)
    assert [shapes[n] for n in ("F5", "F6", "output")] == [(120,), (84,), (10,)]


def test_convnet3_maps_shrink_by_two_and_feed_one_linear_layer():
    x, sizes = torch.zeros(1, 1, 32, 32), []
    model = ConvNet3()
    for layer in model.features:
        x = layer(x)
        sizes += [tuple(x.shape[1:])] if isinstance(layer, nn.Conv2d) else []
    assert sizes == [(32, 30, 30), (128, 28, 28), (512, 26, 26)]
    assert model.head.output.in_features == 512 * 26 * 26
    assert all(layer.padding == (0, 0) and layer.stride == (1, 1) for layer in model.features[::2])


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_its_input_shape_and_any_number_of_classes(name):
    model = build(name, num_classes=7)
    assert model(torch.zeros(2, *input_shape(model))).shape == (2, 7)
    assert not model.training


def test_features_and_head_are_upstream_and_downstream():
    model, x = LeNet5().eval(), torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(model.head(model.features(x)), model(x))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("LeNet", "did you mean 'LeNet5'?"),
        ("torchvision:resnet", "did you mean 'resnet"),
        ("timm:resnet9999", "did you mean"),
        ("no_such_package:f", "cannot be imported"),
        ("torch.nn:NoSuch", "no function of that name"),
        ("builtins:dict", "gave a dict, but a torch.nn.Module is needed"),
        ("torch.nn:Linear", "cannot be made with no arguments"),
        ("raising:make", "cannot be made with no arguments (ValueError: no weights today)"),
        ("broken:make", "cannot be imported"),
    ],
)
def test_a_wrong_model_is_one_sentence_with_a_remedy(spec, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raising.py").write_text("def make():\n    raise ValueError('no weights today')\n")
    (tmp_path / "broken.py").write_text("def make(:\n")
    with pytest.raises(ModelError) as error:
        build(spec)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_models_come_from_torchvision_timm_and_functions():
    assert input_shape(build("torchvision:resnet18"), "torchvision:resnet18") == (3, 224, 224)
    assert input_shape(build("timm:resnet10t"), "timm:resnet10t") == (3, 176, 176)
    assert isinstance(build("torch.nn:Identity"), nn.Identity)
    assert input_shape(nn.Identity()) is None


SHAPES = {
    "inception_v3": (3, 299, 299), "vit_b_16": (3, 224, 224), "lraspp_mobilenet_v3_large": (3, 520, 520),
    "ssdlite320_mobilenet_v3_large": (3, 320, 320), "fasterrcnn_mobilenet_v3_large_fpn": (3, 800, 800),
    "r3d_18": (3, 16, 112, 112), "s3d": (3, 16, 224, 224), "raft_small": (3, 512, 512),
    "efficientnet_b1": (3, 240, 240),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_network_of_torchvision_takes_what_its_weights_were_published_on(name):
    with torch.device("meta"):
        assert input_shape(build(f"torchvision:{name}"), f"torchvision:{name}") == SHAPES[name]
