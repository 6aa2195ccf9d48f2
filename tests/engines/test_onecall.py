"""A network in one call gives what the network gives, whatever layers it has, and in every way to run a batch."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.engines.fused.onecall import How
from convscope.errors import ModelError
from convscope.layers.fast.compiled import After, Window, kernels
from convscope.layers.fast.operators import pack, there
from convscope.models import HeadedNetwork, backbone, build
from convscope.optimize import fuse
from one_calls import Unlike, all_made, made, untime

pytestmark = pytest.mark.skipif(kernels() is None, reason="it is made of our own kernels, which need a compiler")

halved = pytest.mark.skipif(not (kernels() and kernels().half), reason="no products of bfloat16 here")

HOWS = [How(False), How(False, 2**12), How(False, float("inf")), How(True), How(False, 0, 1), How(False, 0, 2)]
HOWS += [How(False, 0, 1, layers) for layers in (1, 3)]


@pytest.fixture(autouse=True)
def untimed(monkeypatch):
    untime(monkeypatch)


@torch.no_grad()
def check(net, x):
    """One call is there, and equal in all ways for several numbers of pictures."""
    ones = all_made(net, x)
    assert ones
    for one, how in product(ones, HOWS):
        one.how = how
        for n in (1, len(x), len(x) + 3):
            given = x.repeat(3, 1, 1, 1)[:n].contiguous(memory_format=torch.channels_last)
            (found,) = one(given)
            own = net(given)
            assert found.shape == own.shape
            assert float((found - own).abs().max() / own.abs().max()) < 2e-5
    return ones[0]


class Gated(nn.Module):
    """Squeeze and excitation, a residual path, pooling: what is between convolutions elsewhere."""

    def __init__(self, channels=24):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.down, self.up = nn.Conv2d(channels, 6, 1), nn.Conv2d(6, channels, 1)
        self.last, self.head = nn.Conv2d(channels, 40, 1), nn.Linear(40 * 4, 7)

    def forward(self, x):
        x = F.silu(self.first(x))
        y = F.hardswish(self.norm(self.depth(x)))
        y = y * self.up(F.silu(self.down(F.adaptive_avg_pool2d(y, 1)))).sigmoid()
        y = F.avg_pool2d(F.relu6(x + y), 2)
        return self.head(F.max_pool2d(F.hardsigmoid(self.last(y)), 2).flatten(1))


def test_gates_paths_and_pooling():
    torch.manual_seed(0)
    one = check(Gated(), torch.randn(2, 3, 16, 16))
    assert {layer.kind for layer in one.layers} == {
        "dense", "grouped", "mean", "pointwise", "scaled", "sum", "largest", "cut",
    }  # fmt: skip


def test_lenet5_and_maps_that_are_given_out():
    torch.manual_seed(0)
    check(build("LeNet5"), torch.randn(2, 1, 32, 32))
    check(nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 5, 3)), torch.randn(2, 3, 9, 11))


windows = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))
ACTED = [lambda y: y, F.silu, torch.sigmoid, F.hardswish, F.hardsigmoid, F.gelu]


@given(windows, st.integers(1, 20), st.integers(1, 3), st.integers(9, 14), st.integers(9, 14), st.sampled_from(ACTED))
@settings(max_examples=60, deadline=None)
def test_dense_convolutions_of_any_window(window, ins, outs, h, w, acted):
    kh, kw, stride, padding, dilation = window
    x = torch.randn(2, ins, h, w).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(16 * outs, ins, kh, kw), torch.randn(16 * outs)
    own = F.conv2d(x, weight, bias, stride, padding, dilation)
    window = Window(kh, kw, stride, stride, padding, padding, dilation, dilation)
    other, packed = torch.randn_like(own).contiguous(memory_format=torch.channels_last), pack("dense", weight, groups=1)
    after = After(bias, other, activation=ACTED.index(acted))
    torch.testing.assert_close(
        there().dense(x, packed, after, len(weight), window), acted(own + other), rtol=1e-4, atol=1e-4
    )


def test_arrays_share_memory_when_one_is_read_before_the_other_is_written():
    deep = nn.Sequential(*(nn.Conv2d(16, 16, 1) for _ in range(12)))
    one = check(deep, torch.randn(2, 16, 8, 8))
    (plan,) = [p for (n, how), p in one._plans.items() if (n, how) == (1, How(False))]
    assert plan.values <= 3 * 16 * 8 * 8 + 32 * 16  # and what kernels in tiles see behind it


class Pixelwise(nn.Module):
    """What ConvNeXt has: normalised pixels, linear layers on channels that are the last axis, and a sum that is not."""

    def __init__(self, channels=20):
        super().__init__()
        self.first, self.depth = nn.Conv2d(3, channels, 3), nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.plain = nn.LayerNorm(channels), nn.LayerNorm(channels, eps=1e-3, elementwise_affine=False)
        self.wide, self.narrow = nn.Linear(channels, 3 * channels), nn.Linear(3 * channels, channels, bias=False)
        self.scale = nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, x):
        y = self.first(x)
        z = self.norm(self.depth(y).permute(0, 2, 3, 1))
        z = self.narrow(F.gelu(self.wide(z))).permute(0, 3, 1, 2) * self.scale + y
        z = self.plain(z.permute(0, 2, 3, 1))
        return F.relu(z + self.norm(z)).permute(0, 3, 1, 2)


def test_normalised_pixels_and_linear_layers_on_them():
    torch.manual_seed(0)
    one = check(Pixelwise(), torch.randn(2, 3, 12, 11))
    assert [layer.kind for layer in one.layers].count("normalised") == 3
    assert sum(layer.other is not None for layer in one.layers) == 2  # both sums became part of something


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(20, 31), (9, 5), (1, 1)])
def test_maps_made_larger(size, corners):
    class Larger(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 21, (2, 1)), last

        def forward(self, x):
            return self.last(F.interpolate(self.conv(x), size, mode="bilinear", align_corners=corners))

    check(Larger(nn.Identity()), torch.randn(2, 3, 7, 6))
    check(Larger(nn.Conv2d(21, 5, 1)), torch.randn(2, 3, 7, 6))


class Wide(nn.Module):
    """Channels that fill tiles: a window of every kind, groups, a stride, a path that is added, an activation."""

    def __init__(self):
        super().__init__()
        self.first, self.one = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 1)
        self.grouped = nn.Conv2d(64, 128, 3, stride=2, padding=1, groups=2)
        self.last = nn.Conv2d(128, 128, (1, 3), padding=(0, 1), bias=False)

    def forward(self, x):
        y = F.silu(self.grouped(F.relu6(self.one(self.first(x)))))
        return F.relu(self.last(y) + y)


@pytest.mark.skipif(not (kernels() and kernels().tiles), reason="no products of bfloat16 in tiles here")
def test_convolutions_in_tiles(monkeypatch):
    monkeypatch.setattr("convscope.engines.fused.fusing._fastest", lambda runs, *_, added: [*runs][-1])
    monkeypatch.setattr("convscope.engines.fused.fusing.cache.load", lambda *_: None)
    monkeypatch.setattr("convscope.engines.fused.fusing.cache.save", lambda *_: None)
    torch.manual_seed(0)
    one = check(Wide(), torch.randn(2, 3, 11, 13))
    assert [layer.kind for layer in one.layers] == ["dense", "tiles", "tiles", "tiles"]
    monkeypatch.setattr(there(), "tiles", False)  # as on a processor without matrix units
    one = check(nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, stride=2)), torch.randn(2, 3, 11, 13))
    assert [layer.kind for layer in one.layers] == ["dense", "dense"]


class Few(nn.Module):
    """A convolution to few channels, something behind it, and a reader."""

    def __init__(self, ins, outs, kernel, padding, behind, reader):
        super().__init__()
        self.first = nn.Conv2d(ins, outs, kernel, padding=padding)
        self.behind, self.reader = behind, reader(outs)

    def forward(self, x):
        return self.reader(self.behind(self.first(x)))


READERS = [
    lambda n: nn.Conv2d(n, 5, 3, padding=1, bias=False),
    lambda n: nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(n, 3, (1, 2), stride=2)),
    lambda n: nn.Sequential(nn.MaxPool2d(2, padding=1), nn.Flatten(), nn.LazyLinear(6)),
    lambda n: nn.Conv2d(n, n, 3, padding=1, groups=n),  # which wants whole vectors of channels
    lambda n: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    lambda n: nn.Sequential(nn.MaxPool2d(2), nn.ReLU6()),
]
POOLS = [nn.Identity(), nn.MaxPool2d(2), nn.MaxPool2d(2, stride=1), nn.MaxPool2d(2, dilation=2)]


@given(
    st.tuples(st.sampled_from([3, 5, 2]), st.integers(1, 5)),
    st.tuples(st.integers(0, 1), st.integers(0, 2)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(17, 37), st.integers(17, 37)),
    st.sampled_from([nn.Identity(), nn.ReLU(), nn.SiLU(), nn.ReLU6()]),
    st.sampled_from(POOLS),
    st.sampled_from(READERS),
)
@settings(max_examples=30, deadline=None)
def test_convolutions_to_few_channels(kernel, padding, channels, size, act, pool, reader):
    net = Few(*channels, kernel, padding, nn.Sequential(act, pool), reader)
    x = torch.randn(2, channels[0], *size)
    with torch.no_grad():
        net(x)
    check(net, x)


def test_few_channels_fill_vectors_with_pixels():
    lanes = there().panel // 2
    for outs, pool in ((3, nn.MaxPool2d(2)), (8, nn.MaxPool2d(2)), (8, nn.Identity())):
        net = Few(1, outs, 5, 0, nn.Sequential(nn.ReLU(), pool), READERS[0])
        fits = lanes >= 2 * -(-outs // 4) * 4
        kinds = [layer.kind for layer in check(net, torch.randn(2, 1, 13, 18)).layers]
        if fits:
            assert kinds == ["thin" if isinstance(pool, nn.Identity) else "thin largest", "dense"]


def test_what_is_no_number_passes_the_largest_of_few_channels():
    net = Few(2, 4, 3, 1, nn.MaxPool2d(2), READERS[0])
    x = torch.randn(1, 2, 12, 12)
    x[0, 1, 4, 7] = float("nan")
    with torch.no_grad():
        own, (found,) = net(x), made(net, x)(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(own.isnan(), found.isnan())
    assert 0 < own.isnan().sum() < own.numel()


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_held_ready_gives_the_same_from_any_thread(threads):
    torch.manual_seed(0)
    net = build("LeNet5").eval()
    made = fuse(net, torch.zeros(1, 1, 32, 32))
    given = [torch.randn(n, 1, 32, 32) for n in (1, 2, 1, 3, 1, 2) for _ in range(20)]

    def ask(x):
        with torch.no_grad():
            return made(x)

    with ThreadPoolExecutor(threads) as pool, torch.no_grad():
        for x, found in zip(given, pool.map(ask, given), strict=True):
            torch.testing.assert_close(found, net(x), rtol=1e-4, atol=1e-5)
            assert found.is_contiguous()
    wide = torch.randn(2, 1, 32, 64)[..., ::2]
    with torch.no_grad():
        for x in (wide, given[0].double()):
            torch.testing.assert_close(made(x), net(x.float()), rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="takes pictures of 1x32x32"):
        made(torch.zeros(1, 1, 32, 33))


class Padded(nn.Module):
    """Borders as TensorFlow has them where the stride is 2: more on one side than on the other."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second
        self.conv, self.depth = nn.Conv2d(3, 20, 3, 2), nn.Conv2d(20, 20, 5, 2, groups=20)

    def forward(self, x):
        return self.depth(F.pad(F.relu6(self.conv(F.pad(x, self.first))), self.second))


@pytest.mark.parametrize("first", [(0, 1, 0, 1), (1, 0, 2, 1), (1, 1), (0, 0, 3, 0)])
@pytest.mark.parametrize("second", [(1, 2, 1, 2), (2, 0, 0, 0)])
@pytest.mark.parametrize("half", [False, pytest.param(True, marks=halved)])
def test_borders_of_unequal_sides(first, second, half):
    torch.manual_seed(0)
    net, x = Padded(first, second).eval(), torch.randn(2, 3, 15, 18)
    one = made(net, x, half=half) if half else check(net, x)
    assert [layer.kind for layer in one.layers].count("padded") == 2
    assert one.rest is None
    with torch.no_grad():
        (found,), own = one(x.contiguous(memory_format=torch.channels_last)), net(x)
    assert float((found - own).abs().max() / own.abs().max()) < (0.03 if half else 2e-5)


@pytest.mark.parametrize("more", [{"value": 1.0}, {"mode": "reflect"}, {"pad": (0, 0, 0, 0, 0, 1)}, {"pad": (0, -1)}])
def test_other_borders_are_left_to_pytorch(more):
    given = {"pad": (1, 1, 1, 1)} | more
    net = Unlike(lambda y: F.conv2d(F.pad(y, **given), torch.ones(2, y.shape[1] + (len(given["pad"]) > 4), 1, 1)))
    assert made(net, torch.randn(2, 3, 8, 8)) is None


def test_planes_are_read_right_by_what_is_held_ready():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    made, x = fuse(net, torch.zeros(2, 3, 40, 40)), torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        own = net(x)
        for given in (
            x,
            x.contiguous(memory_format=torch.channels_last),
            x.transpose(2, 3).contiguous().transpose(2, 3),
        ):
            for _ in range(3):
                torch.testing.assert_close(made(given), own, rtol=1e-4, atol=1e-5)


class Outlined(nn.Module):
    """What a segmenter ends with: a map repeated, a transposed convolution, coarse logits made larger and added."""

    def __init__(self, kernel, stride, padding, more, *, added, last, outs=11):
        super().__init__()
        self.coarse, self.fine, self.score = (
            nn.Conv2d(3, 24, 3, 2, 1),
            nn.Conv2d(3, 24, 3, 1, 1),
            nn.Conv2d(24, outs, 1),
        )
        self.up = nn.ConvTranspose2d(24, outs, kernel, stride, padding, more)
        self.added, self.last = added, last

    def forward(self, x):
        coarse = self.coarse(x)
        y = self.up(F.relu(self.fine(x) + F.interpolate(coarse, x.shape[2:])))
        if self.added:
            y = y + F.interpolate(
                self.score(coarse), y.shape[2:], mode="bilinear", align_corners=self.added == "corners"
            )
        return self.last(y)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "more", "added"),
    [(4, 2, 1, 0, "corners"), (8, 4, 2, 0, "middles"), (2, 2, 0, 0, ""), (3, 2, 1, 1, "middles")],
)
@pytest.mark.parametrize("last", [nn.Identity(), nn.Conv2d(11, 6, 3)])
def test_transposed_convolutions_and_what_is_added(kernel, stride, padding, more, added, last):
    torch.manual_seed(0)
    one = check(Outlined(kernel, stride, padding, more, added=added, last=last), torch.randn(2, 3, 7, 10))
    kinds = [layer.kind for layer in one.layers]
    assert kinds.count("unfolded") == kinds.count("repeated") == 1
    assert "sum" not in kinds
    assert "enlarged" not in kinds


@pytest.mark.parametrize(
    "more", [{"kernel": (4, 6)}, {"stride": (2, 1)}, {"padding": 0}, {"groups": 2}, {"dilation": 2}]
)
def test_other_transposed_convolutions_are_left_to_pytorch(more):
    given = {"kernel": 4, "stride": 2, "padding": 1} | more
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ConvTranspose2d(16, 4, given.pop("kernel"), **given))
    assert made(net, torch.randn(2, 3, 8, 8)) is None


def test_a_segmenter_is_one_call():
    torch.manual_seed(0)
    net = HeadedNetwork(backbone("small"), {"segment": 11})
    for size in ((64, 64), (32, 96)):
        assert check(net, torch.randn(2, 3, *size)).layers[-1].kind == "unfolded"
