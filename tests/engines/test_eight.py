"""A network in one call in eight bits: on whole numbers that bytes hold, it gives what float64 does."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convscope.engines import (
    BYTES,
    FusedModel,
    OpenVinoModel,
    fused_from,
    named_outputs,
    onnx_bytes,
    openvino_from,
    peaks_of,
    program_of,
)
from convscope.engines.fused.onecall import How
from convscope.errors import ModelError
from convscope.layers.fast.compiled import kernels
from convscope.optimize import fuse
from convscope.optimize.candidates import NUMERIC, STAGES, Material
from convscope.optimize.fusing import difference
from one_calls import HOWS, STEP, made, untime

tiles = pytest.mark.skipif(not (kernels() and kernels().half), reason="no products of bytes here")
X, Y, OTHER = 1, 2, 4  # which arrays of a layer are bytes
(candidate,) = (c for c in STAGES[NUMERIC] if c.name == "fused convolutions, int8")


@pytest.fixture(autouse=True)
def untimed(monkeypatch):
    """Nothing is timed."""
    untime(monkeypatch)
    monkeypatch.setattr("convscope.engines.fused.model._quicker", lambda one, steps, example: True)


def whole(conv, *, most=127):
    """Weights that are whole numbers, one of each output the largest byte, so that bytes hold them exactly."""
    with torch.no_grad():
        conv.weight.copy_(torch.randint(-most, most + 1, conv.weight.shape))
        conv.weight.flatten(1)[:, 0] = 127
    return conv


def spread(channels, inputs=1):
    """From few channels to many: whole numbers of at most 120, if the inputs are at most 40."""
    conv = nn.Conv2d(inputs, channels, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.randint(-3, 4, conv.weight.shape) * (torch.rand(conv.weight.shape) < 2 / inputs))
        conv.bias.copy_(torch.randint(0, 5, (channels,)))
    return conv


def shown(channels):
    """Gives 127 times what it reads."""
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.dirac_(conv.weight)
    with torch.no_grad():
        conv.weight.mul_(127)
    return conv


def numbers(*shape):
    return torch.randint(0, 41, shape).float()


@torch.no_grad()
def found_by(net, x, **peaks):
    """What each way to run a batch gives, which is the same, and the layers."""
    one = made(net, x, peaks=peaks)
    assert one is not None
    outputs = []
    for how in HOWS:
        one.how = how
        for _ in range(2):
            outputs.append(one(x.contiguous(memory_format=torch.channels_last))[0])
            for plan in one._plans.values():
                for memory in plan.spare:
                    memory.view(torch.int16).fill_(-1)
    assert all(torch.equal(y, outputs[0]) for y in outputs)
    return outputs[0], one.layers


def peak_near(wanted):
    """One of whose bytes `shown` gives a number that bfloat16 holds exactly."""
    return 255 / 127 * 2.0 ** round(math.log2(wanted * 127 / 255))


def check_bytes(found, own, peak, *, other=0.0):
    """What `shown` gave are bytes of float64's numbers, each the nearest, or one of the two that are about as near."""
    level = found.double() / (127 * peak / 255)
    assert bool(((level - level.round()).abs() <= 1e-4).all())
    exact = (own * 255 / peak).clamp(0, 255)
    assert bool(((level - exact).abs() <= 0.501 + other).all())


windows = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))
sizes = st.tuples(st.integers(1, 3), st.integers(9, 19), st.integers(9, 19))


@tiles
@given(windows, sizes, st.sampled_from([16, 32, 40, 64, 96, 128]), st.sampled_from([1, 16, 17, 40, 64]), st.booleans())
@settings(max_examples=12, deadline=None)
def test_convolutions_of_bytes(window, size, ins, outs, bias):
    kh, kw, stride, padding, dilation = window
    dilation = 1 if ins % 64 else dilation
    conv = whole(nn.Conv2d(ins, outs, (kh, kw), stride, padding, dilation, bias=bias))
    net, x = nn.Sequential(spread(ins), nn.ReLU(), conv), numbers(size[0], 1, *size[1:])
    found, layers = found_by(net, x, relu=255.0)
    assert [t.in_bytes for t in layers if t.kind == "tiles"] == [Y, X]
    own = net.double()(x.double())
    assert bool(((found - own).abs() <= 1.01 * STEP * own.abs() + 1e-3).all())


@tiles
@given(windows, sizes, st.sampled_from([3, 32, 64, 128]), st.sampled_from([1, 16, 17, 40, 64]), st.floats(0.3, 1.5))
@settings(max_examples=12, deadline=None)
def test_convolutions_to_bytes(window, size, ins, outs, share):
    """Of the picture in bfloat16, or of bytes."""
    kh, kw, stride, padding, _ = window
    conv = whole(nn.Conv2d(ins, outs, (kh, kw), stride, padding))
    first = [spread(ins), nn.ReLU()] if ins > 3 else []
    x = numbers(size[0], 1 if first else ins, *size[1:])
    body = nn.Sequential(*first, conv, nn.ReLU())
    with torch.no_grad():
        own = body.double()(x.double())
    body.float()
    peak = peak_near(share * float(own.max()) + 1.0)
    names = {"relu": 255.0, "relu_1": peak} if first else {"relu": peak}
    found, layers = found_by(nn.Sequential(*body, shown(outs)), x, **names)
    assert [t.in_bytes for t in layers if t.kind == "tiles"] == ([Y] if first else []) + [Y + (X if first else 0), X]
    check_bytes(found, own, peak)


@tiles
@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_groups_that_fill_tiles(groups, dilation):
    conv = whole(nn.Conv2d(64 * groups, 32 * groups, 3, 2, 1, dilation, groups=groups))
    net, x = nn.Sequential(spread(64 * groups), nn.ReLU(), conv), numbers(2, 1, 15, 12)
    found, layers = found_by(net, x, relu=255.0)
    assert layers[-2].in_bytes == X
    own = net.double()(x.double())
    assert bool(((found - own).abs() <= 1.01 * STEP * own.abs() + 1e-3).all())


class Residual(nn.Module):
    """Adds what it reads to a convolution of it, or another convolution of it."""

    def __init__(self, channels, *, other=None):
        super().__init__()
        self.first, self.conv = spread(channels), whole(nn.Conv2d(channels, channels, 3, padding=1))
        self.other, self.last = other or nn.Identity(), shown(channels)

    def body(self, x):
        x = F.relu(self.first(x))
        return F.relu(self.conv(x) + self.other(x))

    def forward(self, x):
        return self.last(self.body(x))


@tiles
@given(st.sampled_from([16, 32, 64]), sizes, st.booleans())
@settings(max_examples=8, deadline=None)
def test_arrays_that_are_added(channels, size, another):
    """In bytes, or where they may be negative in bfloat16, which rounds them."""
    net = Residual(channels, other=whole(nn.Conv2d(channels, channels, 1)) if another else None)
    x = numbers(size[0], 1, *size[1:])
    with torch.no_grad():
        own = net.double().body(x.double())
    net.float()
    peak = peak_near(float(own.max()))
    found, layers = found_by(net, x, relu=255.0, relu_1=peak)
    arrays = [t.in_bytes for t in layers if t.kind == "tiles"]
    assert arrays == ([Y, X, X + Y, X] if another else [Y, X + Y + OTHER, X])
    reach = float(net.other(F.relu(net.first(x))).detach().abs().max()) if another else 0.0
    check_bytes(found, own, peak, other=STEP * reach * 255 / peak)  # where bfloat16 is added


@tiles
@pytest.mark.parametrize(("channels", "kernel", "stride", "padding"), [(16, 2, 2, 0), (32, 3, 2, 1), (64, 3, 1, 1)])
def test_the_largest_of_bytes(channels, kernel, stride, padding):
    pool = nn.MaxPool2d(kernel, stride, padding)
    net, x = nn.Sequential(spread(channels), nn.ReLU(), pool, shown(channels)), numbers(3, 1, 13, 10)
    found, layers = found_by(net, x, relu=255.0)
    assert [t.in_bytes for t in layers if t.kind == "largest"] == [X + Y]
    own = net[:3].double()(x.double())
    assert torch.equal((found / 127).round().double(), own)


class Read(nn.Module):
    """What a ReLU gives is read by a convolution and by something that reads no bytes."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = spread(32), whole(nn.Conv2d(32, 32, 3, padding=1))

    def forward(self, x):
        x = F.relu(self.first(x))
        return {"a": self.conv(x), "b": F.interpolate(x, scale_factor=2)}


@tiles
@torch.no_grad()
def test_what_others_read_too_is_copied_into_bytes():
    net, x = Read(), numbers(2, 1, 9, 7)
    one = made(net, x, peaks={"relu": 255.0})
    assert [(t.kind, t.in_bytes) for t in one.layers[:4]] == [
        ("narrowed", 0), ("tiles", 0), ("to bytes", Y), ("tiles", X)
    ]  # fmt: skip
    one.how = How(False)
    found = one(x.contiguous(memory_format=torch.channels_last))
    own = net.double()(x.double())
    assert bool(((found[0] - own["a"]).abs() <= 1.01 * STEP * own["a"].abs()).all())
    assert torch.equal(found[1].double(), own["b"])


@tiles
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.Identity(), nn.Hardtanh(-1, 6), nn.Hardtanh(1, 6)])
def test_what_may_be_negative_stays_bfloat16(activation):
    net, x = nn.Sequential(spread(32), activation, whole(nn.Conv2d(32, 32, 3))), numbers(2, 1, 9, 7)
    known = {n.name: 6.0 for n in program_of(net, x).graph.nodes}
    assert not any(t.in_bytes for t in made(net, x, peaks=known).layers)


@tiles
def test_a_relu_that_lets_nothing_through_stays_bfloat16():
    net, x = nn.Sequential(spread(32), nn.ReLU(), whole(nn.Conv2d(32, 32, 3))), numbers(2, 1, 9, 7)
    assert not any(t.in_bytes for t in made(net, x, peaks={"relu": 0.0}).layers)


def test_peaks_are_those_of_a_picture_on_average():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2), nn.ReLU())
    nn.init.ones_(net[0].weight)
    x = torch.zeros(20, 1, 2, 2)
    x[:10, 0, 0, 1], x[10:, 0, 1, 1] = 3.0, 5.0
    assert peaks_of(program_of(net, x), x) == {"relu": 4.0}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=10).eval()
    x = torch.randn(4, *INPUT)
    with torch.no_grad():  # as after training: what layers give is neither tiny nor huge
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.momentum = None
                m.train()
        net(torch.randn(16, *INPUT))
    return net.eval(), x


INPUT = (3, 64, 64)


@tiles
@torch.no_grad()
def test_a_whole_network_comes_as_near_as_eight_bits_let_it(network):
    net, x = network
    found = fuse(net, x, precision="int8")
    assert found.counts[BYTES] > 15
    own = named_outputs(net(x))
    assert 0.005 < difference(own, named_outputs(found(x))) < 0.15


@tiles
@torch.no_grad()
def test_the_file_holds_the_ranges(network):
    net, x = network
    found = fuse(net, x, precision="int8")
    again = fused_from(found.content(), source="m")
    assert again.peaks == found.peaks
    assert torch.equal(again(x), found(x))


def changed(content, change):
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    graph = json.loads(head["__metadata__"]["graph"])
    change(graph)
    head["__metadata__"]["graph"] = json.dumps(graph)
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


@pytest.mark.parametrize("peaks", [7, ["relu"], {"relu": "far"}, {"relu": float("inf")}, {"relu": None}])
def test_ranges_that_cannot_be_are_refused(peaks):
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3)).eval()
    content = fuse(net, torch.rand(1, 3, 9, 9), precision="int8").content()
    with pytest.raises(ModelError, match=r"^m: how far its values reach is damaged; optimize again$"):
        fused_from(changed(content, lambda graph: graph.update(peaks=peaks)), source="m")


def test_without_tiles_of_bytes_it_is_float32(monkeypatch, network):
    net, x = network
    found = kernels()
    if found:
        monkeypatch.setattr(found, "half", False)
    eight = fuse(net, x, precision="int8")
    assert any("no tiles of bytes" in note for note in eight.notes)
    with torch.no_grad():
        assert difference(named_outputs(net(x)), named_outputs(eight(x))) < 1e-4


def test_without_tiles_of_bytes_there_is_no_candidate(monkeypatch):
    monkeypatch.setattr("convscope.optimize.candidates.kernels", lambda: None)
    with pytest.raises(ModelError, match=r"int8: needs a processor that multiplies tiles of bytes"):
        candidate.make(Material(nn.Identity(), torch.rand(1, 3, 9, 9), fuse(nn.ReLU(), torch.rand(1, 3, 9, 9)).card))


def test_int8_is_no_precision_of_openvino():
    net, x = nn.Conv2d(3, 4, 3).eval(), torch.rand(2, 3, 9, 9)
    card = replace(fuse(net, x).card, precision="int8")
    files = openvino_from(onnx_bytes(net, x, card), card)
    with pytest.raises(ModelError, match=r"^m\.xml: its card is damaged"):
        OpenVinoModel(*files, source="m.xml")


class Pictures:
    def __init__(self, x_NCHW: Tensor) -> None:
        self.x = x_NCHW

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, at: Tensor) -> tuple[Tensor, None]:
        return self.x[at], None


@tiles
def test_the_candidate_says_why_it_cannot_be():
    net, x = nn.Sequential(nn.Conv2d(3, 32, 3), nn.SiLU(), nn.Conv2d(32, 32, 3)).eval(), torch.rand(2, 3, 9, 9)
    card = replace(fuse(net, x).card, precision="f32")
    with pytest.raises(ModelError, match="int8: no layer reads bytes"):
        candidate.make(Material(net, x, card, training=Pictures(x)))
    net[1] = nn.ReLU()
    made = candidate.make(Material(net, x, card, training=Pictures(x)))
    assert isinstance(made.module, FusedModel)
    assert made.note.startswith("1 in tiles, 1 in tiles of bytes")
