"""Every rule against the definition: what one output element changes when an input element changes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convscope import receptive_field, summarize
from convscope.graph import RULES, reads, record, rule_of
from rule_cases import BOUNDS, CASES


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


def test_every_rule_has_a_case():
    quantised = {key for key in RULES if "quanti" in key}  # held to their float twins in test_quantised
    gradients = {key for key in RULES if "_backward" in key}  # held to FlopCounterMode below
    fused = {key for key in RULES if "attention" in key or "cudnn" in key}  # of other devices, with the rules of ours
    assert CASES.keys() - gradients - fused == RULES.keys() - quantised - gradients - fused


def hull(changed):
    places = changed.nonzero()
    return None if len(places) == 0 else tuple((int(p.min()), int(p.max())) for p in places.T)


@pytest.mark.parametrize("key", CASES)
def test_a_rule_counts_by_hand_and_reads_what_changes_the_output(key):
    function, shapes, macs = CASES[key]
    torch.manual_seed(0)
    inputs = [torch.rand(s) + 0.5 for s in shapes]
    recording = record(Call(function), *inputs, keep=lambda op: False)
    op = next(o for o in recording.ops if o.target.rpartition(".")[0] == key)
    assert rule_of(op).macs(op) == macs
    torch.manual_seed(0)
    base = function(*[x.clone() for x in inputs])
    k = next((k for k, out in enumerate(op.outputs) if out in recording.outputs), 0)
    unit = tuple(n // 2 for n in base.shape)
    for which, (value, x) in enumerate(zip(recording.inputs, inputs, strict=True)):
        true = hull(_that_change(function, inputs, which, base[unit], unit))
        box = reads(op, tuple((i, i) for i in unit), value, k=k)
        if box is not None:
            box = tuple((max(lo, 0), min(hi, n - 1)) for (lo, hi), n in zip(box, x.shape, strict=True))
        if not op.outputs:  # a Python number: not followed, and that is said
            assert box is None
            assert op.name.startswith(("is_", "_has_")) or "1 value left PyTorch" in recording.notes[-1]
        elif key in BOUNDS:
            assert all(b[0] <= t[0] and b[1] >= t[1] for b, t in zip(box, true or box, strict=True))
        elif "aten.copy" not in key or true is not None:
            assert box == true


def _that_change(function, inputs, which, before, unit):
    """Where a change of one input element changes the output at the unit."""
    changed = torch.zeros_like(inputs[which], dtype=torch.bool)
    for place in torch.cartesian_prod(*[torch.arange(n) for n in changed.shape]).reshape(-1, changed.ndim):
        moved = [t.clone() for t in inputs]
        moved[which][tuple(place)] += 0.25
        with torch.random.fork_rng():
            torch.manual_seed(0)
            changed[tuple(place)] = function(*moved)[unit] != before
    return changed


def test_an_unknown_operator_may_read_everything():
    op = record(Call(lambda x: torch.cdist(x, x + 1)), torch.zeros(2, 3)).ops[-1]
    assert rule_of(op) is None
    assert reads(op, ((0, 0), (0, 0)), op.inputs[0]) == ((0, 1), (0, 2))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_grouped_convolution_reads_the_channels_of_its_group(groups):
    recording = record(nn.Conv2d(4, 8, 1, groups=groups), torch.zeros(1, 4, 2, 2))
    op = recording.ops[-1]
    unit = ((0, 0), (5, 5), (0, 0), (0, 0))
    size = 4 // groups
    assert reads(op, unit, op.inputs[0])[1] == (5 // (8 // groups) * size, 5 // (8 // groups) * size + size - 1)


def test_pooling_of_a_picture_without_a_batch_axis():
    op = record(nn.AvgPool2d(2), torch.zeros(3, 6, 8)).ops[-1]
    assert reads(op, ((1, 1), (2, 2), (3, 3)), op.inputs[0]) == ((1, 1), (4, 5), (6, 7))


TWICE = {
    "cat": (lambda x: torch.cat([x, x + 0], 1), lambda x: torch.cat([x, x], 1), (4, 5), (1, 7)),
    "mm": (lambda x: torch.mm(x, x + 0), lambda x: torch.mm(x, x), (5, 5), (1, 3)),
    "attention": (
        lambda x: F.scaled_dot_product_attention(x, x + 0, x * 1),
        lambda x: F.scaled_dot_product_attention(x, x, x),
        (1, 2, 5, 4),
        (0, 1, 2, 3),
    ),
    "stack": (lambda x: torch.stack([x, x + 0]), lambda x: torch.stack([x, x]), (4, 5), (1, 2, 3)),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_value_that_plays_several_parts_is_read_for_each(name):
    """The same as if a copy of it played the others."""
    apart, together, shape, unit = TWICE[name]
    x = torch.rand(shape)
    boxes = []
    for function in (apart, together):
        recording = record(Call(function), x, keep=lambda op: False)
        boxes.append(receptive_field(recording, recording.ops[-1], unit=unit))
    assert boxes[0] == boxes[1]


def test_a_roll_of_all_axes_as_one_may_read_everything():
    op = record(Call(lambda x: torch.ops.aten.roll(x, [1], [])), torch.zeros(2, 3)).ops[-1]
    assert reads(op, ((0, 0), (0, 0)), op.inputs[0]) == ((0, 1), (0, 2))


def test_an_operator_in_place_has_the_rule_of_its_twin():
    op = record(Call(lambda x: x.mul(2).cumsum_(1)), torch.zeros(2, 3)).ops[-1]
    assert op.target == "aten.cumsum_.default"
    assert rule_of(op) is RULES["aten.cumsum"]


def test_every_operator_of_pytorchs_core_set_has_a_rule_or_is_named_here():
    """The set that exported programs are brought to (its tag in PyTorch)."""
    known = {n.removeprefix("aten::").split(".")[0] for n in torch._C._dispatch_get_all_op_names() if "aten::" in n}
    packets = (
        getattr(torch.ops.aten, n, None) for n in known
    )  # `dir(torch.ops.aten)` lists what was asked for already
    core = {
        f"aten.{packet.__name__}"
        for packet in packets
        if hasattr(packet, "overloads") and any(torch.Tag.core in getattr(packet, o).tags for o in packet.overloads())
    }
    symbols = {f"sym_{n}" for n in ("is_contiguous", "numel", "size", "storage_offset", "stride")}
    taken_apart, unknown = {"adaptive_avg_pool1d", "avg_pool1d"}, {"_cdist_forward", "_pdist_forward", "resize_"}
    assert {n for n in core if n not in RULES} == {f"aten.{n}" for n in symbols | taken_apart | unknown}


NETS = {
    "convolutions": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 2, 3)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2), nn.Hardswish(), nn.MaxPool2d(2), nn.Flatten()),
    "product": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(400, 5), nn.Softmax(1)),
}


@pytest.mark.parametrize("name", NETS)
def test_a_training_step_takes_the_macs_that_pytorchs_counter_says(name):
    model, x = NETS[name](), torch.rand(2, 3, 12, 12)
    total = summarize(record(model, x, backward=True)).total
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    assert (total.macs, total.unknown) == (counter.get_total_flops() // 2, ())
