"""Networks of others through our training kernels: as near to float32 as PyTorch's bfloat16; all else as before."""

import copy
import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from convscope import models
from convscope.layers.fast import convolved
from convscope.layers.fast.normed import served
from convscope.layers.fast.quick import Quick
from convscope.train import parts

HALF = torch.bfloat16


def _network() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=4).to(memory_format=torch.channels_last)  # pyright: ignore


def _pictures(number: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last), torch.arange(number) % 4


def _gradients(model: nn.Module, way: AbstractContextManager[object], *, half: bool = True) -> dict[str, Tensor]:
    """Of every weight, and what the network remembers."""
    x, y = _pictures()
    with way:
        with torch.autocast("cpu", HALF, enabled=half):
            out = model.train()(x)
        F.cross_entropy(out.float(), y).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None} | dict(model.named_buffers())


def _far(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest relative distance."""
    assert found.keys() == wanted.keys()
    return max(float((found[k] - w).float().norm() / (w.float().norm() + 1e-6)) for k, w in wanted.items())


def _nodes(y: Tensor) -> Iterator[str]:
    """What the graph behind y is made of."""
    seen, left = set[object](), [y.grad_fn]
    while left:
        if (node := left.pop()) is not None and node not in seen:
            seen.add(node)
            yield type(node).__name__
            left += [before for before, _ in node.next_functions]


def test_a_network_of_torchvision_learns_as_near_to_float32_as_by_pytorch() -> None:
    exact = _gradients(_network(), nullcontext(), half=False)
    found, usual = _gradients(_network(), Quick()), _gradients(_network(), nullcontext())
    assert _far(found, exact) <= 1.3 * _far(usual, exact) < 1


def test_float32_is_pytorchs_where_that_is_as_fast() -> None:
    found, wanted = (_gradients(_network(), way, half=False) for way in (Quick(), nullcontext()))
    assert all(torch.equal(found[k], w) for k, w in wanted.items())


def test_all_that_serve_go_there() -> None:
    if not served(torch.zeros(1, 16, 1, 1)):
        pytest.skip("there is no compiler")
    with Quick(), torch.autocast("cpu", HALF):
        nodes = list(_nodes(_network().train()(_pictures()[0])))
    assert nodes.count("_BatchNormedBackward") == 20
    assert nodes.count("_ConvolvedBackward") == (19 if convolved._there() else 0)  # all but that of three channels


def test_maps_that_lie_otherwise_are_left_to_pytorch() -> None:
    model = _network().to(memory_format=torch.contiguous_format).train()  # pyright: ignore
    with Quick(), torch.autocast("cpu", HALF):
        nodes = list(_nodes(model(_pictures()[0].contiguous())))
    assert {"_BatchNormedBackward", "_ConvolvedBackward"}.isdisjoint(nodes)


def test_outside_and_in_evaluation_nothing_is_other_than_it_was() -> None:
    model, (x, _) = _network().eval(), _pictures()
    before = model(x)
    with Quick(), torch.no_grad():
        assert torch.equal(model(x), before)
        with torch.autocast("cpu", HALF):
            inside = model(x)
    with torch.no_grad(), torch.autocast("cpu", HALF):
        assert torch.equal(model(x), inside)
    assert torch.equal(model(x), before)


def test_modules_stay_as_they_are_and_who_listens_hears() -> None:
    model, heard = _network(), list[tuple[int, ...]]()
    names, keys = [type(m) for m in model.modules()], list(model.state_dict())
    hook = model.get_submodule("layer1.0.conv1").register_forward_hook(lambda m, x, y: heard.append(tuple(y.shape)))
    _gradients(model, Quick())
    assert heard == [(4, 64, 16, 16)]
    hook.remove()
    assert ([type(m) for m in model.modules()], list(model.state_dict())) == (names, keys)
    copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    assert all(torch.equal(t, copied.state_dict()[k]) for k, t in pickled.state_dict().items())


def test_the_same_again_is_the_same_to_the_bit() -> None:
    one, other = (_gradients(_network(), Quick()) for _ in range(2))
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("reentrant", [True, False])
def test_parts_that_are_computed_anew_on_the_way_back_are_left_to_pytorch(reentrant: bool) -> None:
    class Anew(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True))

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    torch.manual_seed(0)
    model, x = Anew(), torch.randn(2, 16, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    found = list[Tensor]()
    for inner, way in ((model, Quick()), (model.inner, nullcontext())):
        with way, torch.autocast("cpu", HALF):
            inner(x).float().square().sum().backward()
        found.append(cast("Tensor", x.grad))
        x.grad = None
    assert torch.equal(*found)


@pytest.mark.parametrize(("size", "words"), [("same", {"padding": "same"}), (3, {"stride": (2, 1), "padding": (1, 1)})])
def test_functions_called_by_name_are_served_or_left(size: int | str, words: dict[str, object]) -> None:
    x, weight = torch.randn(2, 16, 9, 9).contiguous(memory_format=torch.channels_last), torch.randn(16, 16, 3, 3)
    with torch.autocast("cpu", HALF):
        wanted = F.conv2d(input=x, weight=weight, **words)  # pyright: ignore
        with Quick():
            assert torch.equal(F.conv2d(input=x, weight=weight, **words), wanted)  # pyright: ignore


def test_weights_of_a_kind_of_their_own_are_left_to_pytorch() -> None:
    class Own(Tensor):
        pass

    x = torch.randn(2, 16, 9, 9).contiguous(memory_format=torch.channels_last)
    with Quick(), torch.autocast("cpu", HALF):
        for weight, groups in ((torch.randn(16, 16, 3, 3), 1), (torch.randn(16, 1, 5, 5), 16)):
            y = F.conv2d(x, weight.as_subclass(Own).requires_grad_(), None, 1, weight.shape[2] // 2, 1, groups)
            assert {"_WindowsBackward", "_ConvolvedBackward"}.isdisjoint(_nodes(y))


def test_our_own_blocks_call_the_kernels_themselves() -> None:
    theirs, ours = models.build("torchvision:resnet18", num_classes=2), models.network("small", num_classes=2)
    cpu, half = torch.device("cpu"), "bfloat16"
    assert isinstance(parts.quick(theirs, precision=half, device=cpu), Quick)
    assert not isinstance(parts.quick(ours, precision=half, device=cpu), Quick)
    assert not isinstance(parts.quick(theirs, precision="float32", device=cpu), Quick)
    assert not isinstance(parts.quick(theirs, precision=half, device=torch.device("meta")), Quick)
