"""The fused form gives what the network gives, whatever stands around its convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.errors import ModelError
from convscope.layers.fast.compiled import kernels
from convscope.optimize import fold, fuse
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
    monkeypatch.setattr("convscope.optimize.fusing._fastest", lambda forms, *_, added: [*forms][-1])
    net = Residual((lambda a, b: F.relu(a + b)) if relu else (lambda a, b: a + b)).eval()
    x = torch.randn(2, 32, 13, 10)
    found = fuse(net, x)
    assert found.counts == {"folded": 1, "oneDNN": 0, "Winograd": 1, "own 1x1": 1, "own depthwise": 0, "own pooling": 0}
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-3)


def test_other_sizes_than_the_example_are_taken():
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), normalised(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16)
    ).eval()
    found, x = fuse(net, torch.zeros(1, 3, 16, 16)), torch.randn(5, 3, 33, 20)
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-5)


class Shared(nn.Module):
    """One convolution in two places, a normalisation behind each."""

    def __init__(self):
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(4, 4, 1), normalised(4), normalised(4)

    def forward(self, x):
        return self.two(self.conv(self.one(self.conv(x))))


def test_a_convolution_that_is_used_twice_is_not_folded():
    net, x = Shared().eval(), torch.randn(1, 4, 5, 5)
    found = fuse(net, x)
    assert found.counts["folded"] == 0
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-5)


def test_the_network_stays_as_it_is():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), normalised(8)).eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fuse(net, torch.zeros(1, 3, 8, 8))
    fold(net, torch.zeros(1, 3, 8, 8))
    torch.testing.assert_close(net.state_dict(), before)
    assert [type(m) for m in net] == [nn.Conv2d, nn.BatchNorm2d]


def test_folding_alone_gives_the_same():
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), normalised(8), nn.ReLU()).eval(), torch.randn(2, 3, 8, 8)
    found = fold(net, x)
    assert found.counts == {"folded": 1}
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-5, atol=1e-5)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_is_one_sentence():
    with pytest.raises(ModelError, match=r"torch\.fx cannot trace the network .*control flow"):
        fuse(Branching(), torch.ones(1, 3, 4, 4))


def test_a_difference_is_the_share_of_the_largest_value_and_nan_is_the_worst():
    own = {"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([100.0])}
    assert difference(own, {"a": torch.tensor([2.0, -4.0]), "b": torch.tensor([101.0])}) == 0.25
    worst = difference(own, {"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([float("nan")])})
    assert worst != worst
