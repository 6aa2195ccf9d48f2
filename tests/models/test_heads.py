"""Heads: shapes for any picture, places and boxes by hand, and no checkerboard on the way up."""

import pytest
import torch
from torch import nn

from convscope.errors import ModelError
from convscope.layers.fast import normed
from convscope.models import HEADS, Candidates, HeadedNetwork, backbone, network
from convscope.models.heads import Detector


@pytest.mark.parametrize("name", ["small", "torchvision:resnet18", "timm:mobilenetv3_small_050"])
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (70, 53)])
def test_outputs_fit_the_picture(name: str, size: tuple[int, int]) -> None:
    both = HeadedNetwork(backbone(name), {"classify": 5, "detect": 4, "segment": 3}).eval()
    with torch.no_grad():
        outputs = both(torch.rand(2, 3, *size))
    assert outputs["classify"].shape == (2, 5)
    assert outputs["segment"].shape == (2, 3, *size)
    found = outputs["detect"]
    places = sum(-(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32))
    assert [tuple(t.shape) for t in found] == [(2, places, 4), (2, places, 4), (places, 2), (places,)]
    assert (found.boxes[..., 2:] > found.boxes[..., :2]).all()


def test_one_head_gives_its_output_alone() -> None:
    assert isinstance(network("small", num_classes=3, task="detect")(torch.zeros(1, 3, 64, 64)), Candidates)
    assert network("small", num_classes=3)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_places_are_the_centres_of_their_cells_row_by_row() -> None:
    found = network("small", num_classes=1, task="detect")(torch.zeros(1, 3, 64, 96))
    first = found.points[found.strides == 32]
    assert first.tolist() == [[16, 16], [48, 16], [80, 16], [16, 48], [48, 48], [80, 48]]


def test_boxes_reach_from_the_place_by_the_exponents_times_the_stride() -> None:
    model = network("small", num_classes=1, task="detect")
    head = model.heads["detect"]
    nn.init.zeros_(head.distances.weight)
    head.distances.bias.data = torch.tensor([0.0, 1.0, 2.0, 0.5])
    head.scales.data = torch.tensor([1.0, 2.0, 0.0])
    found = model(torch.rand(1, 3, 64, 64))
    for stride, scale in ((8, 1.0), (16, 2.0), (32, 0.0)):
        own = found.strides == stride
        reach = stride * (scale * torch.tensor([0.0, 1.0, 2.0, 0.5])).exp()
        wanted = torch.cat([found.points[own] - reach[:2], found.points[own] + reach[2:]], 1)
        torch.testing.assert_close(found.boxes[0, own], wanted)


def test_the_way_up_leaves_no_checkerboard() -> None:
    """With equal weights a constant map stays constant: every pixel is reached by as many taps."""
    up = HEADS["segment"]((8, 8), (4, 8), num_classes=2).up  # stride 4
    nn.init.ones_(up.weight)
    nn.init.zeros_(up.bias)
    assert all(k % s == 0 for k, s in zip(up.kernel_size, up.stride, strict=True))
    y = up(torch.ones(1, up.in_channels, 8, 8))
    inside = y[..., 4:-4, 4:-4]
    assert y.shape[2:] == (32, 32)
    assert (inside == inside[0, 0, 0, 0]).all()
    crooked = nn.ConvTranspose2d(1, 1, 3, 2, bias=False)  # what the rule is for
    nn.init.ones_(crooked.weight)
    assert len(crooked(torch.ones(1, 1, 8, 8))[..., 4:-4, 4:-4].unique()) > 1


def test_a_detector_needs_a_map_of_its_strides() -> None:
    with pytest.raises(ModelError, match=r"needs maps of stride 8, 16 or 32, but the backbone has \(2, 4\)"):
        HEADS["detect"]((8, 8), (2, 4), num_classes=2)
    with pytest.raises(ModelError, match=r"needs maps of stride 2 or 4 and above 4, but the backbone has \(2, 4\)"):
        HEADS["segment"]((8, 8), (2, 4), num_classes=2)


@pytest.mark.parametrize("size", [(64, 64), (70, 53)])
def test_a_detector_in_training_is_the_same_level_by_level(size: tuple[int, int], monkeypatch) -> None:
    """All levels in one map, both towers side by side, beside PyTorch's layers one by one."""
    if not normed.served(torch.zeros(1, 16, 1, 1)):
        pytest.skip("there is no compiler")
    torch.manual_seed(0)
    head = Detector((32, 64, 128, 160), (4, 8, 16, 32), num_classes=3, width=32).train()
    sides = [[-(-n // stride) for n in size] for stride in (4, 8, 16, 32)]
    maps = [torch.randn(2, c, *side) for c, side in zip((32, 64, 128, 160), sides, strict=True)]

    def found() -> list[torch.Tensor]:
        told = head([m.to(memory_format=torch.channels_last) for m in maps], size)
        weights = [p for p in head.parameters() if p.requires_grad]
        return [*told, *torch.autograd.grad((told.logits.square().sum() + told.boxes.sum()), weights)]

    ours = found()
    monkeypatch.setattr(normed, "library", lambda: None)
    for own, plain in zip(ours, found(), strict=True):
        torch.testing.assert_close(own, plain, atol=1e-3 * float(plain.detach().abs().max()), rtol=1e-3)


def test_a_detector_whose_towers_were_changed_still_learns() -> None:
    """As factorised layers are, a tower's convolution is a stack."""
    head = Detector((32,), (8,), num_classes=3, width=32).train()
    _, norm, act = head.classify[0].children()
    first = nn.Conv2d(32, 32, (3, 1), padding=(1, 0), bias=False)
    second = nn.Conv2d(32, 32, (1, 3), padding=(0, 1), bias=False)
    head.classify[0] = nn.Sequential(nn.Sequential(first, second), norm, act)
    x = torch.randn(2, 32, 8, 8).to(memory_format=torch.channels_last)
    head([x], (64, 64)).logits.sum().backward()
    assert first.weight.grad is not None
