"""Costs per module, comparisons, limits, sizes and advice: sums, laws and numbers by hand."""

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from convscope import record, summarize
from convscope.errors import InputError
from convscope.geometry import Window
from convscope.inspect import Budget, advice, compare, least_input, rolled, sizes
from convscope.inspect.advice import padded_share
from convscope.inspect.budget import amount, widest_field


def summary_of(model, *shape):
    return summarize(record(model.eval(), torch.zeros(1, *(shape or (3, 64, 64)))))


RESNET = torchvision.models.resnet18()


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_modules_of_any_depth_add_up_to_the_network(depth):
    summary = summary_of(RESNET)
    told = rolled(summary, depth=depth)
    for key in ("params", "macs", "activation_bytes", "bytes_moved"):
        assert sum(getattr(m, key) for m in told.modules) == getattr(summary.total, key) == getattr(told.total, key)
    assert all(m.path.count(".") < depth for m in told.modules)
    layer1 = next(m for m in told.modules if m.path.startswith("layer1"))
    assert layer1.params == sum(p.numel() for p in RESNET.get_submodule(layer1.path).parameters())


def test_frozen_parameters_stand_apart():
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 3))
    told = rolled(summary_of(model, 2))
    assert [(m.params, m.trainable_params) for m in told.modules] == [(6, 0), (9, 9)]


def test_a_comparison_names_what_changed_and_with_itself_nothing():
    small, large = summary_of(RESNET), summary_of(torchvision.models.resnet34())
    assert compare(small, small).modules == ()
    told = compare(small, large, depth=2)
    changes = {row["name"]: row["change"] for row in told.table().rows}
    assert changes["layer1.2"] == "added"
    assert set(changes.values()) == {"added"}
    back = {row["name"]: row["change"] for row in compare(large, small, depth=2).table().rows}
    assert set(back.values()) == {"removed"}
    difference = sum(row["params"] or 0 for row in told.table().rows)
    assert difference == large.total.params - small.total.params
    assert "parameters: 11,689,512 -> 21,797,672 (+86.5 %)" in str(told)


def test_limits_that_are_broken_are_said_one_by_one():
    summary = summary_of(RESNET)
    total = summary.total
    kept = Budget(total.macs, total.params, total.memory.peak, widest_field(summary))
    assert kept.broken(summary) == ()
    broken = Budget(total.macs - 1, total.params - 1, total.memory.peak - 1, 1000).broken(summary)
    assert [sentence.partition(":")[0] for sentence in broken] == [
        "MACs", "parameters", "peak memory", "receptive field"]  # fmt: skip
    assert broken[1] == "parameters: 11,689,512, but 11,689,511 are allowed"
    assert broken[3] == "receptive field: 435 px at most, but 1000 px are needed"


def test_macs_that_are_not_known_break_their_limit():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.logcumsumexp(x, 1)

    assert Budget(max_macs=10).broken(summary_of(Odd(), 4)) == ("MACs: at least 0, but 10 are allowed",)


@pytest.mark.parametrize("wrong", ["", "M", "ten", "5X", "1e400G", "nan", "-5", "-5X"])
def test_an_amount_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="is no amount; use such as 600M"):
        amount(wrong, option="--max-macs")


def test_sizes_are_what_is_recorded_there():
    told = sizes(RESNET, [(1, 3, 64, 64), (1, 3, 96, 64)])
    assert [s.total.macs for s in told.summaries] == [summary_of(RESNET, 3, h, 64).total.macs for h in (64, 96)]
    assert [row["input_shape"] for row in told.table().rows] == [(1, 3, 64, 64), (1, 3, 96, 64)]


def test_the_least_input_runs_and_one_less_does_not():
    alexnet = torchvision.models.alexnet().eval()
    assert least_input(alexnet) == 63
    alexnet(torch.zeros(1, 3, 63, 63))
    with pytest.raises(RuntimeError):
        alexnet(torch.zeros(1, 3, 62, 62))
    assert least_input(nn.Linear(7, 2), channels=1, most=64) is None


@given(
    n=st.integers(1, 30),
    size=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
)
def test_the_share_of_padding_is_that_of_convolving_ones(n, size, stride, padding, dilation):
    window = Window(size, stride, padding, dilation)
    if n + 2 * padding < dilation * (size - 1) + 1:
        return
    ones = torch.ones(1, 1, n)
    y = nn.functional.conv1d(ones, torch.ones(1, 1, size), stride=stride, padding=padding, dilation=dilation)
    assert padded_share(n, window) == pytest.approx(1 - float(y.sum()) / (y.numel() * size), abs=1e-6)


def test_advice_names_the_waste():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, stride=3), nn.MaxPool2d(2)
    )
    said = advice(record(model.eval(), torch.zeros(1, 3, 16, 15)))
    assert said == (
        "0 (convolution): 1 of 16 rows is never read (stride 2); use an input whose size fits",
        "2 (convolution): 4 of 7 rows are never read (stride 3); use a larger kernel or a smaller stride",
        "2 (convolution): 4 of 7 columns are never read (stride 3); use a larger kernel or a smaller stride",
        "3 (max_pool2d_with_indices): 1 of 3 rows is never read (stride 2); use an input whose size fits",
        "3 (max_pool2d_with_indices): 1 of 3 columns is never read (stride 2); use an input whose size fits",
        "0: its bias does nothing, since batch normalisation follows; use bias=False",
    )
    assert advice(record(nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 9, 9))) == ()


def test_padding_is_a_share_of_all_macs():
    (said,) = advice(record(nn.Conv2d(1, 1, 3, padding=1), torch.zeros(1, 1, 5, 5)))
    assert said == "24.9 % of the convolutions' MACs multiply padding, 24.9 % in convolution"  # 1 - (13 / 15)^2
