"""Advice from profiles whose times are given, so that every gain can be worked out by hand."""

import pytest
import torch
from torch import nn

from convscope.clock import Limits, Timing
from convscope.graph import record
from convscope.profile import Advice, Profile, TimedOp, advise, table_of
from convscope.profile import advice as advising

LIMITS = Limits("a machine", 1, "1.0", {"float32": 1e9}, ((2**20, 1e12),), 1e-9)


def timed(model, x, seconds):
    """A profile in which every operator takes `seconds`."""
    ops = record(model, x).ops
    known = [(op, macs_of(op)) for op in ops]
    times = tuple(TimedOp(op, Timing((seconds,)), None, macs, 0, macs / 1e9, "arithmetic") for op, macs in known)
    return Profile(times, Timing((seconds * len(ops),)), LIMITS)


def macs_of(op):
    if op.name != "convolution":
        return 0
    out, weight = torch.Size(op.outputs[0].shape), torch.Size(op.args["weight"].shape)
    return out.numel() * weight[1:].numel()


@pytest.fixture
def still(monkeypatch):
    """Nothing is measured: only what follows from the profile is told."""
    monkeypatch.setattr(advising, "_measured", lambda model, example: iter(()))


def advice_on(model, x, seconds=1.0):
    return {a.what: a for a in advise(timed(model.eval(), x, seconds), model, x)}


def test_normalisation_and_activation_after_a_convolution_can_be_folded(still):
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(8))
    found = advice_on(model, torch.zeros(1, 8, 8, 8))
    assert found["fold batch normalisation into convolutions (1 operators)"].gain == 1.0
    assert found["fuse activations (1 operators)"].gain == 1.0
    assert {a.how for a in found.values()} == {"predicted"}


def test_winograd_serves_three_by_three_of_stride_one_and_does_a_quarter_of_the_products(still):
    x = torch.zeros(1, 8, 10, 10)
    found = advice_on(nn.Conv2d(8, 16, 3, padding=1), x)
    macs = 16 * 100 * 8 * 9
    assert found["Winograd F(4x4, 3x3) for 1 convolutions"].gain == pytest.approx(1.0 - macs / 4 / 1e9)
    for other in (nn.Conv2d(8, 16, 3, stride=2), nn.Conv2d(8, 16, 3, dilation=2), nn.Conv2d(8, 16, 5)):
        assert not any("Winograd" in what for what in advice_on(other, x))


def test_a_depthwise_separable_pair_needs_its_share_of_the_products(still):
    found = advice_on(nn.Conv2d(8, 16, 3, padding=1), torch.zeros(1, 8, 10, 10))
    pair = 100 * (8 * 9 + 8 * 16)  # the definition: depthwise, then pointwise
    told = found["depthwise separable in place of 1 convolutions, trained anew"]
    assert told.how == "at best"
    assert told.gain == pytest.approx(1.0 - pair / 1e9, abs=1e-9)


def test_grouped_pointwise_transposed_and_shallow_ones_are_left_alone(still):
    x = torch.zeros(1, 8, 10, 10)
    for layer in (nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(8, 8, 3)):
        assert advice_on(layer, x) == {}
    assert advice_on(nn.Conv2d(3, 8, 3), x[:, :3]) == {}


def test_what_would_save_less_than_a_hundredth_is_left_out(still):
    assert advice_on(nn.Conv2d(8, 16, 3), torch.zeros(1, 8, 10, 10), seconds=1e-7) == {}


def test_variants_give_the_networks_own_answer():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    x = torch.randn(2, 3, 12, 12)
    sides = dict(advising._variants(model, (x,)))
    assert "channels_last memory format" in sides
    before = torch.get_num_threads()
    with torch.no_grad():
        for name, run in sides.items():
            tolerance = 0.05 if "bfloat16" in name else 1e-5
            torch.testing.assert_close(run().float(), model(x), rtol=tolerance, atol=tolerance)
    assert torch.get_num_threads() == before


def test_the_largest_gain_comes_first_and_reads_well():
    table = table_of([Advice("this", 0.5, "measured"), Advice("that", 0.25, "at best")], whole=1.0)
    assert table.text().splitlines()[2:] == [
        "this                    500  50 %         measured",
        "that                    250  25 %         at best",
    ]
