"""Backbones: each gives the maps that it says it gives, and trains every weight."""

import pytest
import torch
from torch import nn

from convscope.errors import ModelError
from convscope.models import BACKBONES, Backbone, SmallBackbone, backbone
from convscope.models.backbone import KINDS

NAMES = [*BACKBONES, "torchvision:resnet18", "torchvision:mobilenet_v3_small", "torchvision:vgg11",
         "torchvision:efficientnet_b0", "timm:mobilenetv3_small_050", "timm:resnet10t"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_maps_have_the_channels_and_strides_that_it_says(name: str) -> None:
    model = backbone(name).eval()
    assert isinstance(model, Backbone)
    with torch.no_grad():
        maps = model(torch.zeros(2, 3, 64, 96))
    assert len(maps) == len(model.channels) == len(model.strides) >= 4
    assert list(model.strides) == sorted(set(model.strides))
    for x, channels, stride in zip(maps, model.channels, model.strides, strict=True):
        assert x.shape == (2, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("name", ["small", "torchvision:mobilenet_v3_small"])
def test_every_weight_learns(name: str) -> None:
    model = backbone(name).train()
    sum(x.square().mean() for x in model(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_kinds_differ_in_their_weights_and_not_in_their_maps() -> None:
    counts = {kind: sum(p.numel() for p in SmallBackbone(kind=kind).parameters()) for kind in KINDS}
    assert counts["depthwise-separable"] < counts["shuffled-grouped"] < counts["standard"]
    assert len({SmallBackbone(kind=kind).channels for kind in KINDS}) == 1


def test_what_cannot_serve_is_refused() -> None:
    with pytest.raises(ModelError, match="kind is 'dense'; use standard, depthwise-separable, shuffled-grouped"):
        SmallBackbone(kind="dense")
    with pytest.raises(ModelError, match=r"model 'smal': no such name; did you mean 'small'\?"):
        backbone("smal")
    with pytest.raises(ModelError, match=r"model 'torch\.nn:Identity': has 0 resolutions"):
        backbone("torch.nn:Identity")


def test_ones_own_backbone_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Module):
        channels, strides = (3,), (1,)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x]

    monkeypatch.setattr(nn, "Own", Own, raising=False)
    assert isinstance(backbone("torch.nn:Own"), Own)
