"""Peak memory against what torch allocates: storages of a real pass on the CPU, and the profiler."""

import weakref

import pytest
import torch
import torchvision
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from convscope import record, summarize
from convscope.graph.values import tensors_of
from convscope.inspect import memory
from convscope.inspect.memory import alive_bytes


class Double(nn.Sequential):
    def __init__(self, a, b):
        layers = [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True))


class UNet(nn.Module):
    def __init__(self, w=8):
        super().__init__()
        self.down1, self.down2, self.pool = Double(3, w), Double(w, 2 * w), nn.MaxPool2d(2)
        self.up, self.last, self.head = nn.ConvTranspose2d(2 * w, w, 2, 2), Double(2 * w, w), nn.Conv2d(w, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        y = self.up(self.down2(self.pool(a)))
        return self.head(self.last(torch.cat([y, a], 1)))


class Tracker(TorchDispatchMode):
    """Adds up storages as they come and go in a real pass."""

    def __init__(self, *known):
        super().__init__()
        self.now = self.peak = 0
        self.seen = {t.untyped_storage()._cdata for t in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_of(result):
            block = tensor.untyped_storage()
            if block._cdata not in self.seen:
                self.seen.add(block._cdata)
                self.now += block.nbytes()
                weakref.finalize(block, self.free, block._cdata, block.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def free(self, key, size):
        self.seen.discard(key)
        self.now -= size


NETWORKS = {
    "resnet18": torchvision.models.resnet18,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "densenet121": torchvision.models.densenet121,
    "unet": UNet,
}


def step(model, x):
    y = model(x)
    return y, torch.autograd.grad([y], list(model.parameters()), [torch.ones_like(y)])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_peak_of_inference_is_that_of_a_real_pass(name):
    model, x = NETWORKS[name]().eval(), torch.rand(2, 3, 64, 64)
    told = memory(record(model, x))
    with torch.no_grad(), Tracker(x, *model.parameters(), *model.buffers()) as tracker:
        model(x)
    assert told.peak - told.held == tracker.peak
    assert told.held == sum(t.nbytes for t in (x, *model.parameters(), *model.buffers()))
    assert told.held < told.needed <= told.peak
    assert told.saved == told.gradients == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_the_peak_of_a_training_step_is_that_of_a_real_one(name):
    model, x = NETWORKS[name]().train(), torch.rand(2, 3, 64, 64)
    told = memory(record(model.eval(), x, backward=True))
    with Tracker(x, *model.parameters(), *model.buffers()) as tracker:
        step(model.train(), x)
    assert told.peak - told.held == pytest.approx(tracker.peak, rel=1e-3)  # the saved statistics of CPU and meta
    assert told.gradients == sum(p.nbytes for p in model.parameters())
    assert told.saved > 0


def test_a_training_step_agrees_with_the_profiler():
    """Apart from what kernels allocate inside themselves: up to 5 % here."""
    model, x = torchvision.models.resnet18().train(), torch.rand(2, 3, 128, 128)
    step(model, x)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step(model, x)
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    told = memory(record(model, x, backward=True))
    assert told.peak - told.held == pytest.approx(peak, rel=0.05)


def test_views_and_in_place_operators_take_no_memory():
    model, x = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(16, 2)), torch.zeros(1, 1, 4, 4)
    recording = record(model, x)
    assert alive_bytes(recording)[:2] == (0, 0)
    rows = {o.op: (o.activation_bytes, o.bytes_moved) for o in summarize(recording).operators}
    assert rows["view"] == (0, 0)
    assert rows["relu_"] == (0, 2 * 64)
    assert rows["addmm"] == (8, 64 + 16 * 2 * 4 + 8 + 8)


def test_the_summary_tells_both_peaks():
    model, x = UNet().eval(), torch.rand(1, 3, 32, 32)
    summary = summarize(record(model, x), training=record(model, x, backward=True))
    assert summary.total.training_memory.peak > summary.total.memory.peak
    assert "peak memory for inference: " in str(summary)
    assert "; for a training step: " in str(summary)
    assert sum(o.activation_bytes for o in summary.operators) == summary.total.activation_bytes
