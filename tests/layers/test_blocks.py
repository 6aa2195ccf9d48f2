"""Blocks: against torchvision's where it has them, else against what they are made of."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual as TorchvisionResidual
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.ops import Conv2dNormActivation, Conv3dNormActivation

from convscope.errors import InputError
from convscope.layers import (
    ConvNormAct,
    DilatedPyramid,
    InvertedResidual,
    PoolAndBack,
    ShuffleUnit,
    UpBlock,
    channel_shuffle,
    max_pool_reference,
    shuffle_reference,
)

BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "conv-norm-act": lambda ndim: ConvNormAct(8, 8, 3, ndim=ndim),
    "inverted-residual": lambda ndim: InvertedResidual(8, 8, expansion=2, ndim=ndim),
    "shuffle-unit": lambda ndim: ShuffleUnit(8, 8, groups=2, ndim=ndim),
    "shuffle-unit-2": lambda ndim: ShuffleUnit(8, 16, groups=2, stride=2, ndim=ndim),
    "dilated-pyramid": lambda ndim: DilatedPyramid(8, 4, dilations=(2, 3), ndim=ndim),
    "up": lambda ndim: UpBlock(8, 4, ndim=ndim),
}
blocks = pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)


def stir(block: nn.Module) -> nn.Module:
    """Give every normalisation something to do, so that leaving one out would show."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return block


def like(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    """The same tensors in the same order give the same output, in training and in evaluation."""
    stir(theirs)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert [v.shape for v in mine.values()] == [v.shape for v in other.values()]
    ours.load_state_dict(dict(zip(mine, other.values(), strict=True)))
    for training in (False, True):
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("ndim", "theirs"), [(2, Conv2dNormActivation), (3, Conv3dNormActivation)])
def test_conv_norm_act_is_torchvisions(ndim, theirs):
    options = {"kernel_size": 3, "stride": 2, "dilation": 2, "groups": 2}
    like(ConvNormAct(4, 6, **options, ndim=ndim), theirs(4, 6, **options), torch.randn(2, 4, *[7] * ndim))


@pytest.mark.parametrize(("out_channels", "stride", "expansion"), [(8, 1, 6), (8, 2, 6), (12, 1, 6), (8, 1, 1)])
def test_inverted_residual_is_torchvisions(out_channels, stride, expansion):
    ours = InvertedResidual(8, out_channels, stride=stride, expansion=expansion)
    like(ours, TorchvisionResidual(8, out_channels, stride, expansion), torch.randn(2, 8, 6, 6))


def test_dilated_pyramid_is_torchvisions():
    theirs = ASPP(6, [2, 3], out_channels=4)
    theirs.project[3] = nn.Identity()  # its dropout
    like(DilatedPyramid(6, 4, dilations=(2, 3)), theirs, torch.randn(2, 6, 9, 9))


@pytest.mark.parametrize("stride", [1, 2])
def test_shuffle_unit_is_the_papers_steps(stride):
    """Grouped 1x1, norm, ReLU, shuffle, depthwise, norm, grouped 1x1, norm; then joined with the way around."""
    unit = ShuffleUnit(8, 8 * stride, groups=2, stride=stride).eval()
    stir(unit)
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        narrow = torch.nn.functional.conv2d(x, unit.enter.conv.weight, groups=2)
        shuffled = torch.tensor(shuffle_reference(narrow.numpy(), groups=2))
        y = unit.leave(unit.depthwise(unit.enter_norm(shuffled).relu()))
        expected = (
            (x + y).relu()
            if stride == 1
            else torch.cat([nn.functional.avg_pool2d(x, 3, stride=2, padding=1), y], 1).relu()
        )
        assert torch.equal(channel_shuffle(narrow, groups=2), shuffled)
        torch.testing.assert_close(unit(x), expected)
    assert unit.depthwise.conv.groups == 2 * stride
    assert unit.leave.conv.groups == 2


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_up_sampling_reaches_every_place_equally(ndim, scale):
    block = UpBlock(1, 1, scale=scale, ndim=ndim)
    nn.init.ones_(block.up.weight)
    x = torch.ones(1, 1, *[5] * ndim)
    y = block.up(x)
    assert y.shape[2:] == tuple(5 * n for n in [scale] * ndim)
    inner = y[(..., *[slice(scale, -scale)] * ndim)]
    assert inner.unique().numel() == 1
    uneven = nn.functional.conv_transpose1d(torch.ones(1, 1, 5), torch.ones(1, 1, 3), stride=2)
    assert uneven[..., 2:-2].unique().numel() > 1  # 3 over 2: the checkerboard


@blocks
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_block_has_every_ndim_and_learns_in_all_its_weights(make, ndim):
    torch.manual_seed(0)
    block, x = make(ndim), torch.randn(3, 8, *[4] * ndim)
    y = block(x)
    assert y.dim() == ndim + 2
    (y * torch.randn_like(y)).sum().backward()
    silent = [name for name, p in block.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_pooling_and_back_puts_each_maximum_where_it_was(ndim):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *(7, 6, 5)[:ndim])
    values, places = max_pool_reference(x.numpy(), 2)
    expected = torch.zeros(2, 3, x[0, 0].numel())
    for n, c in ((n, c) for n in range(2) for c in range(3)):
        expected[n, c, places[n, c].ravel()] = torch.tensor(10 * values[n, c].ravel(), dtype=torch.float32)

    class Tenfold(nn.Module):
        def forward(self, x):
            return 10 * x

    y = PoolAndBack(Tenfold(), ndim=ndim)(x)
    torch.testing.assert_close(y, expected.reshape(x.shape))


def test_pooling_and_back_needs_layers_that_keep_the_shape():
    with pytest.raises(InputError) as caught:
        PoolAndBack(nn.Conv2d(3, 4, 1))(torch.zeros(1, 3, 4, 4))
    assert str(caught.value) == "PoolAndBack: inner makes (1, 4, 2, 2) of (1, 3, 2, 2); use one that keeps the shape"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvNormAct(4, 4, 2), "ConvNormAct: kernel_size is 2; use odd sizes, which have a middle"),
        (lambda: ConvNormAct(4, 6, 3, groups=4), "ConvNormAct: groups is 4; 6 channels divide into 1, 2, 3, 6"),
        (lambda: ConvNormAct(4, 6, 3, dilation=0), "ConvNormAct: dilation is 0; use 1 or more"),
        (
            lambda: ConvNormAct(4, 6, (3, 3), ndim=3),
            "ConvNormAct: kernel_size is (3, 3); give one number, or one for each of the 3 spatial axes",
        ),
        (lambda: InvertedResidual(4, 4, expansion=0), "InvertedResidual: expansion is 0; use 1 or more"),
        (lambda: InvertedResidual(4, 4, ndim=0), "InvertedResidual: ndim is 0; use 1, 2 or 3"),
        (lambda: ShuffleUnit(8, 12, groups=1), "ShuffleUnit: out_channels is 12 with stride 1; use 8"),
        (
            lambda: ShuffleUnit(8, 8, groups=1, stride=2),
            "ShuffleUnit: out_channels is 8 with stride 2; use more than 8",
        ),
        (
            lambda: ShuffleUnit(6, 6, groups=1),
            "ShuffleUnit: out_channels is 6; use a multiple of 4, a quarter lies between",
        ),
        (
            lambda: ShuffleUnit(8, 8, groups=4),
            "ShuffledGroupConv: groups is 4; 2 channels divide into 1, 2",
        ),
        (
            lambda: DilatedPyramid(4, 4, dilations=(1, 0)),
            "ConvNormAct: dilation is 0; use 1 or more",
        ),
        (lambda: PoolAndBack(kernel_size=0), "PoolAndBack: kernel_size is 0; use 1 or more"),
        (lambda: PoolAndBack(ndim=4), "PoolAndBack: ndim is 4; use 1, 2 or 3"),
        (lambda: UpBlock(4, 4, scale=0), "UpBlock: scale is 0; use 1 or more"),
    ],
)
def test_bad_input_names_the_parameter_its_value_and_what_fits(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


def test_conv_norm_act_runs_whatever_it_holds() -> None:
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last)
    block = ConvNormAct(4, 16, 3)
    conv, norm, act = block
    longer, shorter = nn.Sequential(*block, nn.Flatten()), nn.Sequential(conv)
    block.append(nn.Flatten())
    torch.testing.assert_close(block(x), longer(x))
    del block[1:]
    torch.testing.assert_close(block(x), shorter(x))
    assert (norm.training, act.training) == (True, True)
