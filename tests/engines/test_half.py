"""A network in one call in bfloat16: each kernel is held to float64 on the same numbers, within what bfloat16 holds."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.engines.fused.onecall import How
from convscope.layers.fast.compiled import kernels
from convscope.models import build
from convscope.optimize import fuse
from convscope.optimize.fusing import difference
from one_calls import HOWS, STEP, Unlike, made

pytestmark = pytest.mark.skipif(not (kernels() and kernels().half), reason="no products of bfloat16 here")


@pytest.fixture(autouse=True)
def untimed(monkeypatch):
    """Nothing is timed."""
    monkeypatch.setattr("convscope.engines.fused.onecall.OneCall._quickest", lambda self, batch: How(False))


def rounded(t):
    return t.bfloat16().double()


@torch.no_grad()
def check(net, x, *, kinds=(), near=1.02):
    """Layers whose tensors and inputs are bfloat16 give float64's outputs to the nearest, in all ways to run a batch.

    What lies behind the last array in memory changes nothing.
    """
    for p in net.parameters():
        if p.dim() > 1:
            p.copy_(rounded(p))
    one = made(net, x, half=True)
    assert one is not None
    assert {layer.kind for layer in one.layers} == {"narrowed", "widened", *kinds}
    own = net.double()(rounded(x))
    net.float()
    for how in HOWS:
        one.how = how
        for _ in range(2):
            (found,) = one(x.contiguous(memory_format=torch.channels_last))
            assert found.shape == own.shape
            assert found.dtype == torch.float32
            assert bool(((found - own).abs() <= near * STEP * (own.abs() + 0.02 * own.abs().max())).all())
            for plan in one._plans.values():
                for memory in plan.spare:
                    memory.fill_(float("nan"))
    return one


windows = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))
sizes = st.tuples(st.integers(1, 3), st.integers(9, 19), st.integers(9, 19))


@given(windows, sizes, st.sampled_from([1, 3, 8, 32, 33, 64, 96]), st.sampled_from([1, 16, 17, 40, 64]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_dense_convolutions(window, size, ins, outs, bias):
    kh, kw, stride, padding, dilation = window
    n, h, w = size
    dilation = 1 if ins % 32 else dilation  # a row of taps fills tiles only if it has no gaps
    conv = nn.Conv2d(ins, outs, (kh, kw), stride, padding, dilation, bias=bias)
    check(conv, torch.randn(n, ins, h, w), kinds=["tiles"])


@pytest.mark.parametrize("ins", [3, 64])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((1, 4), 2, 2, (15, 16)),
        ((6, 1), 1, 0, (15, 9)),
        (1, 2, 0, (14, 14)),
        (1, 3, 0, (1, 40)),
        ((1, 3), 1, (0, 1), (7, 7)),
    ],
)
def test_bands_of_pictures_whose_rows_might_go_on(kernel, stride, padding, size, ins):
    check(nn.Conv2d(ins, 40, kernel, stride, padding), torch.randn(5, ins, *size), kinds=["tiles"])


@given(windows, sizes, st.sampled_from([16, 32, 40, 64, 160]), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=40, deadline=None)
def test_groups_of_few_channels(window, size, channels, per):
    kh, kw, stride, padding, dilation = window
    n, h, w = size
    channels = channels if per == 1 else -(-channels // 32) * 32
    conv = nn.Conv2d(channels, channels, (kh, kw), stride, padding, dilation, groups=channels // per)
    net = nn.Sequential(nn.Conv2d(3, channels, 1, bias=False), conv)
    with torch.no_grad():  # so that what the first one gives is bfloat16 without rounding
        net[0].weight.copy_(torch.randint(3, net[0].weight.shape) == 0)
    x = torch.randint(-3, 4, (n, 3, h, w)).float()
    check(net, x, kinds=["tiles", "grouped"])


@pytest.mark.parametrize("kernel", [7, 13, (1, 9), (9, 1)])
@pytest.mark.parametrize(("h", "w"), [(7, 7), (14, 30), (33, 15)])
def test_large_depthwise_kernels(kernel, h, w):
    padding = kernel // 2 if isinstance(kernel, int) else [k // 2 for k in kernel]
    net = nn.Sequential(nn.Conv2d(2, 32, 1, bias=False), nn.Conv2d(32, 32, kernel, padding=padding, groups=32))
    nn.init.constant_(net[0].weight, 0.5)
    check(net, torch.randint(-3, 4, (1, 2, h, w)).float(), kinds=["tiles", "grouped"])


@given(st.integers(2, 3), st.sampled_from([1, 2]), sizes)
@settings(max_examples=10, deadline=None)
def test_groups_that_fill_tiles(groups, stride, size):
    n, h, w = size
    net = nn.Sequential(nn.Conv2d(1, 32 * groups, 1), nn.Conv2d(32 * groups, 64 * groups, 3, stride, 1, groups=groups))
    nn.init.ones_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    check(net, torch.randn(n, 1, h, w), kinds=["tiles"])


@pytest.mark.parametrize(
    "acted", [F.relu, F.relu6, F.silu, torch.sigmoid, F.hardswish, F.hardsigmoid, F.gelu], ids=lambda f: f.__name__
)
def test_activations(acted):
    """From where they vanish to where they do nothing."""

    class Acted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 32, 1, bias=False)

        def forward(self, x):
            return acted(self.conv(x))

    net = Acted()
    nn.init.ones_(net.conv.weight)
    x = torch.linspace(-100, 100, 4001).bfloat16().float()
    check(net, torch.cat([x, x / 20]).reshape(1, 1, 2, -1), kinds=["tiles"], near=1.1)


class Between(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.first, self.what = nn.Conv2d(1, 40, 1, bias=False), what

    def forward(self, x):
        return self.what(self.first(x))


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (lambda y: F.max_pool2d(y, 3, 2, 1), "largest"),
        (lambda y: F.avg_pool2d(y, 2), "grouped"),
        (lambda y: F.adaptive_avg_pool2d(y, 1), "mean"),
        (lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (40,)), "normalised"),
        (lambda y: F.interpolate(y, (31, 44), mode="bilinear"), "enlarged"),
        (lambda y: F.interpolate(y, (31, 44), mode="bilinear", align_corners=True).relu(), "enlarged"),
        (lambda y: F.interpolate(y, (31, 61), mode="nearest"), "repeated"),
        (lambda y: F.interpolate(y, scale_factor=2), "repeated"),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
@torch.no_grad()
def test_between_convolutions(what, kind, n):
    torch.manual_seed(0)
    net = Between(what)
    with torch.no_grad():
        net.first.weight.copy_(2.0 ** torch.randint(-3, 3, net.first.weight.shape))
    x = torch.randn(n, 1, 23, 30)
    one = made(net, x, half=True)
    kinds = {layer.kind for layer in one.layers} - {"narrowed", "widened"}
    assert kind in kinds
    own = net.double()(rounded(x))
    net.float()
    for how in HOWS:
        one.how = how
        (found,) = one(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(found.double(), own, rtol=1.02 * STEP, atol=1e-2 * STEP * float(own.abs().max()))


class Gated(nn.Module):
    def __init__(self, channels=48):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels)
        self.depth = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False)
        self.down, self.up = nn.Conv2d(channels, 6, 1), nn.Conv2d(6, channels, 1)
        self.last, self.head = nn.Conv2d(channels, 40, 1), nn.Linear(40 * 4, 7)

    def forward(self, x):
        x = F.silu(self.first(x))
        y = F.hardswish(self.norm(self.depth(x)))
        y = y * self.up(F.silu(self.down(F.adaptive_avg_pool2d(y, 1)))).sigmoid()
        y = F.avg_pool2d(F.relu6(x + y), 2)
        return self.head(F.max_pool2d(F.hardsigmoid(self.last(y)), 2).flatten(1))


@pytest.mark.parametrize(("net", "shape"), [(Gated(), (3, 16, 16)), (build("LeNet5"), (1, 32, 32))])
@torch.no_grad()
def test_whole_networks_and_any_number_of_pictures(net, shape):
    torch.manual_seed(0)
    x = torch.randn(2, *shape)
    one = made(net, x, half=True)
    for how in HOWS:
        one.how = how
        for n in (1, 2, 5):
            given = x.repeat(3, 1, 1, 1)[:n].contiguous(memory_format=torch.channels_last)
            own = net(given)
            assert difference({"": own}, {"": one(given)[0]}) < 4 * STEP


@torch.no_grad()
def test_what_was_in_memory_before_changes_nothing():
    """A tile reaches beyond the inputs of a row of taps: what is there is multiplied by zero, and must be a number."""
    net, wild = nn.Conv2d(1, 32, 1), nn.Conv2d(1, 32, 3)
    one, before = made(net, torch.zeros(1, 1, 6, 8), half=True), made(wild, torch.zeros(1, 1, 30, 30), half=True)
    for _ in range(3):
        before(torch.full((1, 1, 30, 30), float("nan")))
        assert bool(one(torch.ones(1, 1, 6, 8))[0].isfinite().all())


@pytest.mark.parametrize(
    "what",
    [
        nn.Conv2d(64, 64, 3, groups=4),  # of 16 channels
        nn.Conv2d(64, 128, 3, groups=64),
        nn.Sequential(nn.Softmax(1), nn.Conv2d(64, 64, 1)),
    ],
)
def test_what_no_kernel_does_leaves_it_to_pytorch(what):
    assert made(Unlike(what, channels=64), torch.randn(2, 3, 8, 8), half=True) is None
    assert made(nn.Conv2d(3, 32, 3, dilation=2), torch.randn(2, 3, 8, 8), half=True) is None


@torch.no_grad()
def test_where_one_call_is_chosen_it_is_what_a_network_in_bfloat16_runs_on(monkeypatch):
    monkeypatch.setattr("convscope.engines.fused.model._quicker", lambda *_: True)
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 5, 3)).eval(),
        torch.randn(2, 3, 9, 9),
    )
    half = fuse(net, x, precision="bf16")
    assert half.counts["in tiles"] == 2
    assert half(x).dtype == torch.float32
    assert 1e-5 < difference({"": net(x)}, {"": half(x)}) < 2 * STEP
    monkeypatch.setattr(kernels(), "half", False)  # as on a processor without such products
    plain = fuse(net, x, precision="bf16")
    assert plain.counts["oneDNN"] == 2
    assert difference({"": net(x)}, {"": plain(x)}) < 2 * STEP
