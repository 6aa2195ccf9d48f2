"""A recording at another input size, derived, against one that was made there: every operator and every total."""

import pytest
import timm
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import networks
from torch import nn
from torchvision import models

from convscope import record, summarize
from convscope.errors import ModelError
from convscope.graph import NotDerived, resized
from convscope.inspect.sizes import _is_settled

ODD = [(161, 203), (255, 143), (192, 320)]
FOLLOW = [
    "resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "googlenet",
    "efficientnet_b0", "efficientnet_v2_s", "mnasnet0_5", "shufflenet_v2_x0_5", "squeezenet1_1",
    "inception_v3", "densenet201", "alexnet", "vgg11_bn",
]  # fmt: skip
FOLLOW_OF_TIMM = ["repvgg_a0", "hrnet_w18_small", "dla34", "skresnet18", "ese_vovnet19b_dw", "ghostnet_100"]


def zeros(height, width, channels=3):
    return torch.zeros(1, channels, height, width, device="meta")


def settled(model):
    return {path for path, module in model.named_modules() if _is_settled(module)}


def agrees(model, start, size, channels=3):
    derived = resized(record(model, zeros(*start, channels)), ((1, channels, *size),), settled=settled(model))
    there = record(model, zeros(*size, channels))
    assert summarize(derived) == summarize(there)
    assert [v.shape for op in derived.ops for v in op.outputs] == [v.shape for op in there.ops for v in op.outputs]


@pytest.mark.parametrize("name", FOLLOW)
def test_torchvisions_networks_follow_from_one_recording(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        model = models.get_model(name, weights=None, **options).eval()
    for size in ODD:
        agrees(model, (224, 224), size)


@pytest.mark.parametrize("name", FOLLOW_OF_TIMM)
def test_timms_networks_follow_from_one_recording(name):
    with torch.device("meta"):
        model = timm.create_model(name).eval()
    agrees(model, (224, 224), (192, 320))


@given(networks(), st.tuples(st.integers(8, 40), st.integers(8, 40)))
def test_what_is_derived_is_what_is_recorded(model, size):
    try:
        derived = resized(record(model, zeros(23, 29, 1)), ((1, 1, *size),), settled=settled(model))
    except ModelError:
        assume(False)
    except NotDerived:
        return
    assert summarize(derived) == summarize(record(model, zeros(*size, 1)))


class Calls(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


def square(size):
    return Calls(lambda x: nn.functional.interpolate(nn.functional.max_pool2d(x, 2), size=size))


REFUSED = {
    "interpolate to the size of the input": (Calls(lambda x: square(x.shape[2:])(x)), "upsample_nearest2d"),
    "a view whose size is given": (Calls(lambda x: x.view(1, 64)), "view"),
    "a padding that the size may decide": (
        Calls(lambda x: nn.functional.pad(x, (1, x.shape[2] % 2, 0, 0))),
        "constant_pad_nd",
    ),
    "a slice up to a place": (Calls(lambda x: x[:, :, :5]), "slice"),
    "windows as large as the map": (Calls(lambda x: nn.functional.avg_pool2d(x, x.shape[2:])), "avg_pool2d"),
    "positions": (Calls(lambda x: x + torch.arange(8.0)), "arange"),
    "a map that shrinks to one place": (nn.MaxPool2d(2, 4), "max_pool2d_with_indices"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_depend_on_the_size_is_not_guessed_at(case):
    model, name = REFUSED[case]
    recording = record(model, zeros(8, 8, 1))
    with pytest.raises(NotDerived, match=name):
        resized(recording, ((1, 1, 5, 5),))


def test_a_size_left_open_is_followed():
    model = Calls(lambda x: x.view(1, x.shape[1], -1).transpose(1, 2)[:, ::2])
    agrees(model, (8, 8), (5, 7), channels=3)
