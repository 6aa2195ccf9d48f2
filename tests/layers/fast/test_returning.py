"""Maps returned to the picture's size, and the entropy of its pixels: against PyTorch's in float64, there and back."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.layers.fast import entropy, returning
from convscope.layers.fast.entropy import mean_entropy
from convscope.layers.fast.returning import returned
from convscope.layers.fast.training import library

LAST = torch.channels_last


@pytest.fixture(autouse=True)
def there() -> None:
    if library() is None:
        pytest.skip("there is no compiler")


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _near(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert (found.double() - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("pictures", "channels", "classes", "size", "coarse"),
    [
        (3, 16, 11, (5, 64), (2, 16)), (1, 32, 3, (6, 7), (2, 3)),
        (2, 48, 13, (1, 33), (1, 1)), (2, 32, 5, (3, 40), (3, 9)), (1, 16, 2, (3, 130), (18, 3)),
    ],
)  # fmt: skip
def test_what_returns_and_its_gradients_are_those_of_float64(
    dtype: torch.dtype, pictures: int, channels: int, classes: int, size: tuple[int, int], coarse: tuple[int, int]
) -> None:
    up = nn.ConvTranspose2d(channels, classes, 4, 2, 1, bias=classes != 3)
    x = _random(pictures, channels, *size, seed=0).to(dtype).to(memory_format=LAST).requires_grad_()
    rest = _random(pictures, classes, *coarse, seed=1).requires_grad_()
    y = returned(up, x, rest, training=True)
    grad = _random(*y.shape, seed=2)
    found = torch.autograd.grad(y, [x, rest, *up.parameters()], grad)
    exact = [t.detach().double().requires_grad_() for t in (x, rest, *up.parameters())]
    wanted = F.conv_transpose2d(exact[0], exact[2], exact[3] if len(exact) > 3 else None, 2, 1)
    wanted = wanted + F.interpolate(exact[1], wanted.shape[2:], mode="bilinear")
    _near(y, wanted, 1e-5)
    assert (type(y.grad_fn).__name__, found[0].dtype) == ("_ReturnBackward", dtype)
    for at, (own, other) in enumerate(zip(found, torch.autograd.grad(wanted, exact, grad.double()), strict=True)):
        _near(own, other, 1e-5 if at not in (0, 2) or dtype == torch.float32 else 6e-3)


def test_without_the_kernels_the_same_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    up, x, rest = nn.ConvTranspose2d(16, 3, 4, 2, 1), _random(2, 16, 4, 6, seed=0), _random(2, 3, 2, 2, seed=1)
    ours = returned(up, x, rest, training=True)
    monkeypatch.setattr(returning, "library", lambda: None)
    torch.testing.assert_close(ours, returned(up, x, rest, training=True), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "up", [nn.ConvTranspose2d(16, 3, 4, 2, 1, output_padding=1), nn.ConvTranspose2d(16, 3, 8, 4, 2)]
)
def test_other_windows_are_pytorchs_own(up: nn.ConvTranspose2d) -> None:
    x = _random(1, 16, 4, 4, seed=0)
    side = up(x).shape[2:]
    wanted = up(x) + F.interpolate(torch.ones(1, 3, 2, 2), side, mode="bilinear")
    torch.testing.assert_close(returned(up, x, torch.ones(1, 3, 2, 2), training=True), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("classes", "size"), [(11, (16, 10)), (2, (4, 4)), (64, (3, 48))])
def test_the_entropy_and_its_gradient_are_those_of_float64(classes: int, size: tuple[int, int]) -> None:
    logits = (20 * _random(3, classes, *size, seed=0)).requires_grad_()
    targets = torch.randint(0, classes, (3, *size), generator=torch.Generator().manual_seed(1))
    targets[_random(3, *size, seed=2) > 1] = 255
    found = mean_entropy(logits, targets, ignored=255)
    assert found is not None
    exact = logits.detach().double().requires_grad_()
    wanted = F.cross_entropy(exact, targets, ignore_index=255)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)
    for by in (1.0, 3.0):
        own, other = (
            torch.autograd.grad(by * v, t, retain_graph=True)[0] for v, t in ((found, logits), (wanted, exact))
        )
        torch.testing.assert_close(own.double(), other, rtol=1e-5, atol=1e-8)


def test_an_infinite_or_missing_logit_is_told() -> None:
    for bad in (torch.nan, torch.inf):
        logits, targets = torch.zeros(1, 3, 4, 4, requires_grad=True), torch.zeros(1, 4, 4, dtype=torch.int64)
        with torch.no_grad():
            logits[0, 1, 2, 3] = bad
        found = mean_entropy(logits, targets, ignored=255)
        assert found is not None
        assert not found.isfinite()


def test_what_the_kernel_does_not_serve_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    assert mean_entropy(logits, targets, ignored=255) is not None
    assert mean_entropy(logits, targets + 3, ignored=255) is None  # PyTorch says that there is no such class
    assert mean_entropy(logits, targets[:, 1:], ignored=255) is None
    assert mean_entropy(logits[..., 1:], targets[..., 1:], ignored=255) is None
    assert mean_entropy(logits.double(), targets, ignored=255) is None
    monkeypatch.setattr(entropy, "library", lambda: None)
    assert mean_entropy(logits, targets, ignored=255) is None


def test_logits_of_no_class_are_left_to_pytorch() -> None:
    assert mean_entropy(torch.zeros(2, 0, 8, 8), torch.full((2, 8, 8), 255), ignored=255) is None


def test_maps_that_do_not_fit_the_convolution_are_refused_by_pytorch() -> None:
    up, x, coarse = nn.ConvTranspose2d(16, 3, 4, 2, 1), _random(2, 16, 4, 6, seed=0), _random(2, 3, 2, 3, seed=1)
    with pytest.raises(RuntimeError):
        returned(up, _random(2, 32, 4, 6, seed=0), coarse, training=True)
    with pytest.raises(RuntimeError):
        returned(up, x, coarse[:, :2], training=True)
