"""Channels that cannot matter: networks built to have them, against what happens when they are changed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from convscope import record
from convscope.inspect import dead_channels


def told(model, *, size=(3, 9, 9)):
    found = dead_channels(record(model.eval(), torch.zeros(1, *size)), model)
    return {d.module: (d.constant, d.unread) for d in found}


@torch.no_grad()
def test_a_kernel_of_zeros_makes_a_constant_that_is_followed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1))
    model[0].weight[2].zero_()
    assert told(model) == {"0": ((2,), ())}
    model[3].weight[1, :2].zero_()
    model[3].weight[1, 3].zero_()
    assert told(model) == {"0": ((2,), ()), "3": ((1,), ())}  # of what it reads, channel 2 alone, a constant


@torch.no_grad()
def test_a_constant_meets_padding_and_varies():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3, padding=1))
    model[0].weight.zero_()
    model[0].bias.fill_(1)
    assert told(model) == {"0": ((0, 1), ())}
    model[0].bias.zero_()
    assert told(model) == {"0": ((0, 1), ()), "1": ((0, 1), ())}


@torch.no_grad()
def test_behind_a_norm_of_scale_zero_nothing_reads_the_channel():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 1, 1))
    model[1].weight[1] = 0
    model[1].bias[1] = -1
    assert told(model) == {"0": ((), (1,))}


@torch.no_grad()
def test_nobody_reads_where_all_weights_that_follow_are_zero():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.mix, self.head = (
                nn.Conv2d(3, 2, 1),
                nn.Conv2d(3, 3, 1),
                nn.Conv2d(5, 2, 1),
                nn.Linear(8, 2),
            )

        def forward(self, x):
            made = self.mix(torch.cat([self.a(x).relu(), self.b(x)], 1))
            return self.head(nn.functional.adaptive_avg_pool2d(made, 2).flatten(1))

    model = Joined()
    model.mix.weight[:, 3] = 0
    model.head.weight[:, 4:] = 0
    assert told(model) == {"b": ((), (1,)), "mix": ((), (1,))}
    model.mix.weight[0, 0] = 0  # channel 0 of a is read by the second output alone, which nobody reads
    assert told(model) == {"a": ((), (0,)), "b": ((), (1,)), "mix": ((), (1,))}


@torch.no_grad()
def test_what_a_shortcut_reads_matters():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 1, 1)

        def forward(self, x):
            x = self.first(x)
            return self.last(x + self.second(x))

    model = Residual()
    model.second.weight[:, 0] = 0
    assert told(model) == {}
    model.last.weight[:, 0] = 0
    assert told(model) == {"first": ((), (0,)), "second": ((), (0,))}


@torch.no_grad()
def test_groups_and_transposed_kernels():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.ConvTranspose2d(4, 4, 2, groups=2), nn.Conv2d(4, 2, 1))
    model[0].weight[1].zero_()
    model[1].weight[3].zero_()  # what input 3 gives
    model[2].weight[:, 0] = 0
    assert told(model, size=(4, 9, 9)) == {"0": ((1,), (3,)), "1": ((), (0,))}


def test_trained_networks_of_no_such_channels_and_those_without_values():
    assert told(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())) == {}
    with torch.device("meta"):
        model = nn.Conv2d(3, 4, 3)
    assert dead_channels(record(model, torch.zeros(1, 3, 5, 5)), model) == ()


@given(st.data())
def test_dead_channels_can_be_changed_without_a_trace(data):
    """Weights of zero at random; then what is called dead is changed, and the output may move by a constant alone."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 2, padding=data.draw(st.integers(0, 1))),
        nn.AvgPool2d(2), nn.Conv2d(3, 3, 1, groups=data.draw(st.sampled_from([1, 3]))), nn.Flatten(), nn.Linear(27, 2)
    )  # fmt: skip
    x = torch.randn(4, 2, 9 - model[3].padding[0], 9 - model[3].padding[0])
    side = model[:6](x).shape[-1]
    model[7] = nn.Linear(3 * side * side, 2)
    model = model.double().eval()
    kept = []
    for p in model.parameters():
        if p.dim() > 1 or data.draw(st.booleans()):
            mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=p.shape[0], max_size=p.shape[0])))
            p.data[~mask] = 0
    model[3].weight.data[:, data.draw(st.integers(0, 2))] = 0
    before = [layer_output(model, x, k) for k in (0, 3, 5)]
    found = dead_channels(record(model, x.double()), model)
    places = {"0": 0, "3": 1, "5": 2}
    for dead in found:
        if dead.module in places:
            made = before[places[dead.module]]
            for c in dead.constant:
                assert float(made[:, c].max() - made[:, c].min()) == pytest.approx(0, abs=1e-12)
        layer = model[int(dead.module)]
        kept += [(layer, c) for c in dead.unread]
    y = model(x.double())
    for layer, c in kept:
        layer.weight.data[c] += 1
    assert torch.allclose(model(x.double()), y, atol=1e-12)


def layer_output(model, x, k):
    with torch.no_grad():
        return model[: k + 1](x.double())
