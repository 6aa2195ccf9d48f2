"""The fused form gives what the network gives, whatever stands around its convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.engines.fused import OWN, FusedModel
from convscope.errors import ModelError
from convscope.layers.fast.compiled import kernels
from convscope.models import build
from convscope.optimize import fuse, load
from convscope.optimize.fusing import difference

ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardtanh(-0.3, 0.7), nn.LeakyReLU(0.2), nn.SiLU(), nn.Hardswish(),
    nn.GELU(), nn.GELU("tanh"), nn.Sigmoid(), nn.Tanh(), nn.Softplus(),
]  # fmt: skip


def normalised(channels):
    norm = nn.BatchNorm2d(channels)
    for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
        nn.init.uniform_(values, 0.5, 2)
    return norm


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_an_activation_becomes_part_of_the_convolution(activation):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), normalised(8), activation).eval(), torch.randn(2, 3, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(fuse(net, x)(x), net(x), rtol=1e-4, atol=1e-5)


class Residual(nn.Module):
    """Two paths that meet, in the ways in which people write it."""

    def __init__(self, add, channels=32):
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = normalised(channels)
        self.other = nn.Conv2d(channels, channels, 1)
        self.add = add

    def forward(self, x):
        return self.add(self.norm(self.one(F.relu(x))), self.other(x))


@pytest.mark.parametrize(
    "add",
    [
        lambda a, b: a + b,
        lambda a, b: F.relu(a + b),
        lambda a, b: torch.add(b, a).relu(),
        lambda a, b: torch.add(a, b, alpha=2),
        lambda a, b: F.gelu(a.add_(b)),
        lambda a, b: a + b[:1],
        lambda a, b: F.relu(a) + a * b,
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_an_addition_becomes_part_of_the_convolution(add, batch):
    torch.manual_seed(0)
    net, x = Residual(add).eval(), torch.randn(batch, 32, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(fuse(net, x)(x), net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(kernels() is None, reason="Winograd's kernel needs a compiler")
@pytest.mark.parametrize("relu", [False, True])
def test_winograd_takes_the_same_things_in(relu, monkeypatch):
    monkeypatch.setattr("convscope.engines.fused.fusing.chosen", lambda runs, *_, added: [*runs][1])
    monkeypatch.setattr("convscope.engines.fused.model._quicker", lambda *_: False)
    net = Residual((lambda a, b: F.relu(a + b)) if relu else (lambda a, b: a + b)).eval()
    x = torch.randn(2, 32, 13, 10)
    found = fuse(net, x)
    assert {name: n for name, n in found.counts.items() if n} == {"folded": 1, "Winograd": 1, "own 1x1": 1}
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(not (kernels() and kernels().tiles), reason="no products of bfloat16 in tiles here")
def test_tiles_take_the_same_things_in_where_there_are_some(monkeypatch):
    monkeypatch.setattr("convscope.engines.fused.fusing.chosen", lambda runs, *_, added: [*runs][-1])
    monkeypatch.setattr("convscope.engines.fused.model._quicker", lambda *_: False)
    net, x = Residual(lambda a, b: F.relu(a + b)).eval(), torch.randn(2, 32, 13, 10)
    for there, kind in ((True, "in tiles"), (False, "own")):
        monkeypatch.setattr(kernels(), "tiles", there)
        found = fuse(net, x)
        assert {name: n for name, n in found.counts.items() if n} == {"folded": 1, kind: 2}
        with torch.no_grad():
            assert difference({"": net(x)}, {"": found(x)}) < 2e-5


def test_what_is_too_inexact_is_fused_anew_without_the_least_exact_kernel(monkeypatch):
    """Winograd's kernel goes first, then those in tiles."""
    monkeypatch.setattr("convscope.engines.fused.fusing.chosen", lambda runs, *_, added: [*runs][-1])
    made, off = [], iter([1.0, 1.0, 0.0])
    net, x = Residual(lambda a, b: a + b).eval(), torch.randn(1, 32, 8, 8)

    class Watched(FusedModel):
        def __init__(self, *args, ways=OWN, **more):
            super().__init__(*args, ways=ways, **more)
            self.counts |= dict.fromkeys(ways, 1)
            made.append({*ways})

    monkeypatch.setattr("convscope.optimize.fusing.FusedModel", Watched)
    monkeypatch.setattr("convscope.optimize.fusing.difference", lambda *_: next(off))
    fuse(net, x)
    assert made == [{*OWN}, {*OWN} - {"Winograd"}, {*OWN} - {"Winograd", "in tiles"}]


def test_any_number_of_pictures_is_taken_but_no_other_size():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), normalised(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16)
    ).eval()
    found, x = fuse(net, torch.zeros(1, 3, 33, 20)), torch.randn(5, 3, 33, 20)
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="takes pictures of 3x33x20, not 3x16x16; make it anew for that size"):
        found(torch.zeros(1, 3, 16, 16))


def test_what_has_one_shape_for_one_picture_alone_is_not_taken_in():
    torch.manual_seed(0)
    net, x = Residual(lambda a, b: a + b[:1]).eval(), torch.randn(3, 32, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(fuse(net, x[:1])(x), net(x), rtol=1e-4, atol=1e-4)


class Shared(nn.Module):
    """One convolution in two places, a normalisation behind each."""

    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(4, 4, 1), normalised(4), normalised(4)

    def forward(self, x):
        return self.two(self.conv(self.one(self.conv(x))))


def test_a_convolution_that_is_used_twice_gets_weights_for_each():
    net, x = Shared().eval(), torch.randn(1, 4, 5, 5)
    found = fuse(net, x)
    assert found.counts["folded"] == 2
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-5)


class Scaled(nn.Module):
    """Factors behind layers: of their outputs, and of an axis that is not theirs."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(4, 6, 1), nn.Linear(6, 5)
        self.of_conv, self.of_linear = nn.Parameter(torch.rand(6, 1, 1)), nn.Parameter(torch.rand(5, 1, 1))
        self.of_width = nn.Parameter(torch.rand(7))

    def forward(self, x):
        y = self.linear((self.conv(x) * self.of_conv).permute(0, 2, 3, 1))
        return (
            F.gelu(self.of_linear * y.permute(0, 3, 1, 2))
            + self.linear(y[..., :1].expand(-1, -1, -1, 6)).permute(0, 3, 1, 2) * self.of_width
        )


def test_factors_are_folded_where_they_belong_to_outputs():
    torch.manual_seed(0)
    net, x = Scaled().eval(), torch.randn(2, 4, 5, 7)
    found = fuse(net, x)
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-5)


def test_the_network_stays_as_it_is():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), normalised(8)).eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fuse(net, torch.zeros(1, 3, 8, 8))
    torch.testing.assert_close(net.state_dict(), before)
    assert [type(m) for m in net] == [nn.Conv2d, nn.BatchNorm2d]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.PReLU(8)])
def test_what_the_network_learns_later_is_not_seen(activation):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), activation, nn.Conv2d(8, 4, 3)).eval()
    x = torch.randn(1, 3, 9, 9)
    fused = fuse(net, x)
    before = fused(x).clone()
    for weight in net.parameters():
        weight.data += 1
    assert torch.equal(fused(x), before)


def test_bfloat16_is_near_and_gives_float32():
    torch.manual_seed(0)
    net, x = Residual(lambda a, b: F.relu(a + b)).eval(), torch.randn(2, 32, 16, 16)
    with torch.no_grad():
        found, own = fuse(net, x, precision="bf16")(x), net(x)
    assert found.dtype == torch.float32
    assert 1e-5 < difference({"": own}, {"": found}) < 2e-2


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_is_one_sentence():
    with pytest.raises(ModelError, match=r"torch\.export cannot follow the network .*keep its path"):
        fuse(Branching(), torch.ones(1, 3, 4, 4))


def test_a_difference_is_the_share_of_the_largest_value_and_nan_is_the_worst():
    own = {"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([100.0])}
    assert difference(own, {"a": torch.tensor([2.0, -4.0]), "b": torch.tensor([101.0])}) == 0.25
    worst = difference(own, {"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([float("nan")])})
    assert worst != worst


def test_what_was_kept_runs_in_three_lines(tmp_path):
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), normalised(8), nn.ReLU()).eval(), torch.randn(2, 3, 8, 8)
    (tmp_path / "model.fused").write_bytes(fuse(net, x).content())
    network = load(tmp_path / "model.fused")
    with torch.no_grad():
        torch.testing.assert_close(network(x), net(x), rtol=1e-4, atol=1e-5)
    assert network.card.shape == (3, 8, 8)


@pytest.mark.skipif(kernels() is None, reason="it is made of our own kernels, which need a compiler")
def test_memory_of_ways_that_are_not_taken_is_given_back(monkeypatch):
    monkeypatch.setattr("convscope.engines.fused.model._quicker", lambda *_: True)
    one = fuse(build("LeNet5").eval(), torch.zeros(4, 1, 32, 32))._steps
    assert [how for _, how in one._plans] == [one.how]
