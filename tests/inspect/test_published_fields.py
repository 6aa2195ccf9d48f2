"""Published receptive fields, and those of torchvision's networks held to the gradient.

Source: Araujo, Norris & Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019
(doi:10.23915/distill.00021), table of TF-Slim networks: size, effective stride, effective padding.
"""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from convscope import record
from convscope.inspect import fields, misaligned, reach


class Bottleneck(nn.Module):
    """TF-Slim's: a block strides in its last unit, whose shortcut is a pooling of one element."""

    def __init__(self, stride):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, stride, 1), nn.Conv2d(1, 1, 1))
        self.shortcut = nn.AvgPool2d(1, stride)

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


def slim_resnet50():
    blocks = [(3, 2), (4, 2), (6, 2), (3, 1)]
    units = [Bottleneck(stride if i == n - 1 else 1) for n, stride in blocks for i in range(n)]
    pool = (nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(3, 2))  # SAME on an even axis: all padding behind
    return nn.Sequential(nn.Conv2d(1, 1, 7, 2, 3), *pool, *units)


def slim_alexnet():
    """alexnet_v2: the first convolution and the poolings are VALID, the other convolutions SAME."""
    same = [nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)]
    return nn.Sequential(
        nn.Conv2d(1, 1, 11, 4), nn.AvgPool2d(3, 2), nn.Conv2d(1, 1, 5, padding=2), nn.AvgPool2d(3, 2),
        *same, nn.AvgPool2d(3, 2),
    )  # fmt: skip


def slim_vgg16():
    counts = (2, 2, 3, 3, 3)
    return nn.Sequential(*[
        layer for n in counts for layer in (*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(n)), nn.AvgPool2d(2))
    ])  # fmt: skip


def inception_v3():
    """TF-Slim's has the windows of torchvision's."""
    return models.inception_v3(weights=None, init_weights=False, aux_logits=False).eval()


SLIM = {
    "alexnet_v2": (slim_alexnet, (195, 32, 64)),
    "vgg_16": (slim_vgg16, (212, 32, 90)),
    "resnet_v1_50": (slim_resnet50, (483, 32, 239)),
    "inception_v3": (inception_v3, (1311, 32, 618)),
}
TORCHVISION = {
    "alexnet": (195, 32, 66),
    "vgg16": (212, 32, 90),
    "resnet18": (435, 32, 217),
    "resnet50": (427, 32, 213),
}


def last_field(model, x):
    recording = record(model, x)
    maps = [op for op in recording.ops if len(op.outputs[0].shape) == 4 and op.outputs[0].shape[-1] > 1]
    op = [op for op in maps if not op.module.startswith("avgpool")][-1]
    field = fields(recording)[op.outputs[0].id]
    assert (field.is_bound, field.has_phases, field.global_through) == (False, False, ())
    return {tuple(each) for each in zip(field.size, field.stride, field.padding, strict=True)}


@pytest.mark.parametrize("name", SLIM)
def test_the_published_table(name):
    make, published = SLIM[name]
    channels = 3 if name == "inception_v3" else 1
    assert last_field(make(), torch.zeros(1, channels, 299, 299)) == {published}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks(name):
    assert last_field(models.get_model(name, weights=None).eval(), torch.zeros(1, 3, 224, 224)) == {TORCHVISION[name]}


def thin(model):
    """A float64 copy of one channel everywhere, all weights positive, normalisation and maxima replaced."""
    model = copy.deepcopy(model)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(module, name, nn.Conv2d(1, 1, child.kernel_size, child.stride, child.padding, child.dilation))
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    model = model.double()
    for p in model.parameters():
        p.data = torch.full_like(p, 0.3)
    return model


def truth(model, x, unit):
    """First and last row with a gradient."""
    x = x.clone().requires_grad_()
    found = torch.autograd.grad(model(x)[unit], x)[0][0, 0] != 0
    return found.numpy()


BACKBONES = {
    "alexnet": lambda: models.alexnet(weights=None).features,
    "vgg16": lambda: models.vgg16(weights=None).features,
    "resnet18": lambda: nn.Sequential(*list(models.resnet18(weights=None).children())[:-2]),
    "resnet50": lambda: nn.Sequential(*list(models.resnet50(weights=None).children())[:-2]),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_the_numbers_are_what_the_gradient_says(name):
    size, stride, padding = TORCHVISION[name]
    model, x = thin(BACKBONES[name]()), torch.ones(1, 1, size + 320, 64, dtype=torch.float64)
    recording, rows = record(model, x), []
    middle = model(x).shape[2] // 2
    for row in (middle, middle + 1):
        mask = truth(model, x, (0, 0, row, 0))
        assert (reach(recording, recording.ops[-1], unit=(0, 0, row, 0)).mask(2, 3) == mask).all()
        rows.append(mask.any(1).nonzero()[0])
    assert rows[0][-1] - rows[0][0] + 1 == size
    assert rows[1][0] - rows[0][0] == stride
    assert stride * middle - rows[0][0] == padding


ALIGNED = ["resnet18", "resnet50", "googlenet", "inception_v3", "densenet121", "mobilenet_v3_small", "regnet_y_400mf"]


@pytest.mark.parametrize("name", ALIGNED)
def test_torchvisions_branches_look_at_the_same_places(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    found = misaligned(record(models.get_model(name, weights=None, **options).eval(), torch.zeros(1, 3, 299, 299)))
    assert found.found == ()
    assert found.joins > 5
