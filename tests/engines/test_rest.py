"""What no kernel of ours does, behind the layers of one call: PyTorch does it, with numbers that are made once."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.engines import FusedModel, named_outputs, program_of
from convscope.engines.card import Card
from convscope.engines.fused.simplify import fold
from convscope.layers.fast.compiled import kernels
from convscope.models import HeadedNetwork, backbone
from convscope.optimize import fuse
from one_calls import Unlike, made, untime

needed = pytest.mark.skipif(kernels() is None, reason="it is made of our own kernels, which need a compiler")


@pytest.fixture(autouse=True)
def untimed(monkeypatch):
    untime(monkeypatch)


@torch.no_grad()
def check(net, x, *, close=2e-5, half=False):
    """One call is there, and equal for several numbers of pictures, also if the pictures are none of the example's."""
    one = made(net, x, half=half)
    assert one is not None
    for n in (1, len(x), len(x) + 3):
        more = torch.randn(n, *x.shape[1:]).contiguous(memory_format=torch.channels_last)
        for found, own in zip(one(more), named_outputs(net(more)).values(), strict=True):
            assert found.shape == own.shape
            assert float((found - own).abs().max() / own.abs().max()) < close
    return one


WHATS = [
    lambda y: F.gelu(y, approximate="tanh"),
    lambda y: y.permute(0, 3, 2, 1),
    lambda y: F.layer_norm(y, y.shape[1:]),
    lambda y: F.interpolate(y, scale_factor=1.9, mode="bilinear"),
    lambda y: torch.cat([y, y], 1),
    lambda y: y + y.mean((2, 3), keepdim=True),
    lambda y: y * y,
    lambda y: F.avg_pool2d(y, 3, 1, 1, count_include_pad=False),
    lambda y: F.max_pool2d(y, 3, 2, ceil_mode=True),
    lambda y: y.softmax(1),
    lambda y: F.adaptive_avg_pool2d(y, 2),
    lambda y: y.transpose(2, 3),
    lambda y: torch.add(y, y, alpha=2),
    lambda y: y.flatten(2),
]


@needed
@pytest.mark.parametrize("what", WHATS)
def test_what_no_kernel_does_is_left_to_pytorch(what):
    torch.manual_seed(0)
    one = check(Unlike(what), torch.randn(2, 3, 8, 8))
    assert one.layers[0].kind == "dense"
    assert one.rest is not None


@needed
@pytest.mark.parametrize("what", [lambda y: y.softmax(1), lambda y: torch.cat([y, y], 1)])
@pytest.mark.parametrize("layer", [nn.LazyConv2d, nn.LazyConvTranspose2d, nn.LazyLinear])
def test_with_layers_behind_it_there_is_no_one_call(what, layer):
    net, x = nn.Sequential(Unlike(what), layer(*(2, 3)[: 1 + (layer is not nn.LazyLinear)])), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        net(x)
    assert made(net, x) is None


ACTED = [nn.Identity(), nn.ReLU(), nn.SiLU()]


@needed
@given(
    st.integers(1, 40), st.integers(1, 12), st.tuples(st.integers(1, 9), st.integers(2, 9)), st.booleans(),
    st.sampled_from(ACTED), st.sampled_from([1e-2, 0.1]),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_normalised_groups(per, groups, size, affine, act, eps):
    norm = nn.GroupNorm(groups, per * groups, eps=eps, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    first = nn.Conv2d(3, per * groups, 5, padding=2, bias=False)  # it gives its inputs again, exactly
    first.weight.data.zero_()
    for channel in range(per * groups):
        first.weight.data[channel, channel % 3, 2, 2] = 1
    net, far = nn.Sequential(first, norm, act), 10 + torch.randn(2, 3, *size)
    one = check(net, far, close=1e-4)
    with torch.no_grad():
        found, own = one(far.contiguous(memory_format=torch.channels_last))[0], net.double()(far.double())
    torch.testing.assert_close(found.double(), own, rtol=1e-3, atol=1e-3)
    assert [layer.kind for layer in one.layers].count("group normalised") == 1
    assert one.rest is None


@needed
@pytest.mark.parametrize("size", [(64, 64), (72, 104)])
def test_a_detector_is_one_call_but_for_its_boxes(size):
    torch.manual_seed(0)
    net = HeadedNetwork(backbone("small"), {"detect": 10})
    one = check(net, torch.randn(2, 3, *size))
    kinds = [layer.kind for layer in one.layers]
    assert kinds.count("group normalised") == 12
    assert kinds.count("cut") == 6  # the levels of both outputs, one behind the other
    assert not {"aten.cat.default", "aten.arange.default", "aten.conv2d.default"} & {*one.rest.names}
    towers = [t.weight.data_ptr() for t in one.layers if t.macs and t.x.size[0] == t.y.size[0] == 64]
    assert len({*towers}) <= len(towers) - 8  # the levels share what was laid out of one tower's weights
    if kernels().half:
        check(net, torch.randn(2, 3, *size), close=0.03, half=True)


@needed
def test_two_heads_of_one_network():
    torch.manual_seed(0)
    net = HeadedNetwork(backbone("small"), {"classify": 10, "detect": 10, "segment": 11})
    check(net, torch.randn(2, 3, 64, 64))


class Placed(nn.Module):
    """Numbers that bfloat16 does not hold, as places in a picture are; half of them are given out as they are."""

    def __init__(self):
        super().__init__()
        self.conv, self.shift = nn.Conv2d(3, 16, 3), nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        places = torch.arange(260.0) + 0.5
        y = self.conv(x).mean((1, 2, 3), keepdim=True).flatten(1) * 0
        return {"classify": y + places, "segment": places + 1}


def fused(net, x, *, ways, precision):
    card = Card("", None, tuple(x.shape[1:]), (0.0,) * 3, (1.0,) * 3, tuple(named_outputs(net(x))), precision=precision)
    return FusedModel(program_of(net, x), card, batch=len(x), **({} if ways else {"ways": {}}))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("ways", [pytest.param(True, marks=needed), False])
@torch.no_grad()
def test_numbers_stay_exact_and_are_nobodys_to_change(ways, precision):
    net, x = Placed().eval(), torch.randn(2, 3, 8, 8)
    made = fused(net, x, ways=ways, precision=precision)
    for _ in range(2):
        own, found = named_outputs(net(x)), named_outputs(made(x))
        assert all(torch.equal(found[name].float(), t) for name, t in own.items())
        for t in found.values():
            t.zero_()


class Standardised(nn.Module):
    """A convolution whose weights are made of others."""

    def __init__(self):
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.randn(16, 3, 3, 3)), nn.BatchNorm2d(16)

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.relu(self.norm(F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True))))


def test_weights_that_are_made_of_weights_are_made_once():
    torch.manual_seed(0)
    net, x = Standardised().eval(), torch.randn(2, 3, 9, 9)
    program = program_of(net, x)
    assert fold(program) == 1
    assert [str(n.target) for n in program.graph.nodes if n.op == "call_function"] == [
        "aten.conv2d.default",
        "aten.relu.default",
    ]
    torch.testing.assert_close(program.run(x)[0], net(x), rtol=1e-4, atol=1e-4)
    if kernels():
        check(net, x)
        assert fuse(net, x).counts["folded"] == 1


def test_a_border_of_nothing_is_left_out():
    net, x = Unlike(lambda y: F.pad(y, (0, 0, 0, 0)) * F.pad(y, (1, -1, 0, 0))), torch.randn(2, 3, 8, 8)
    program = program_of(net.eval(), x)
    fold(program)
    assert [str(n.target) for n in program.graph.nodes].count("aten.pad.default") == 1
    torch.testing.assert_close(program.run(x)[0], net(x))


def test_chance_is_not_taken_for_a_number():
    net, x = Unlike(lambda y: y + torch.rand(8)).eval(), torch.randn(1, 3, 8, 8)
    program = program_of(net, x)
    fold(program)
    assert not torch.equal(program.run(x)[0], program.run(x)[0])
