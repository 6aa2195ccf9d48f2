"""Every rule against the definition: what one output element changes when an input element changes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convscope.graph import RULES, reads, record, rule_of


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


def unary(name):
    return lambda x: getattr(torch.ops.aten, name)(x)


def binary(name):
    return lambda x, y: getattr(torch.ops.aten, name)(x, y)


NORM = (torch.ones(3), torch.zeros(3), torch.zeros(3), torch.ones(3))
IMAGE, ROWS = (2, 3, 6, 8), (4, 5)
UNARY = [
    "neg",
    "abs",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "relu",
    "relu_",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "silu_",
    "sigmoid",
    "tanh",
    "hardtanh",
    "hardtanh_",
    "hardswish",
    "hardswish_",
    "hardsigmoid",
    "clone",
    "detach",
    "alias",
]
BINARY = ["add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "minimum", "maximum", "copy_"]

# key: (function, input shapes, MACs by hand)
CASES = {
    **{f"aten.{n}": (unary(n), (IMAGE,), 0) for n in UNARY},
    **{f"aten.{n}": (binary(n), (IMAGE, IMAGE), 0) for n in BINARY},
    "aten.pow": (lambda x: x**2, (IMAGE,), 0),
    "aten.clamp": (lambda x: x.clamp(0.1, 9.0), (IMAGE,), 0),
    "aten.clamp_": (lambda x: x.clamp_(0.1, 9.0), (IMAGE,), 0),
    "aten._to_copy": (lambda x: x.double(), (IMAGE,), 0),
    "aten.expand": (lambda x: x.expand(2, 3, 6, 8), ((2, 3, 1, 8),), 0),
    "aten.native_dropout": (lambda x: torch.ops.aten.native_dropout(x, 1e-9, True)[0], (IMAGE,), 0),
    "aten.native_batch_norm": (lambda x: F.batch_norm(x, *NORM[2:], *NORM[:2]), (IMAGE,), 0),
    "aten._native_batch_norm_legit_no_training": (
        lambda x: torch.ops.aten._native_batch_norm_legit_no_training(x, *NORM, 0.1, 1e-5)[0], (IMAGE,), 0,
    ),
    "aten.convolution": (
        lambda x: F.conv2d(x, torch.ones(4, 3, 3, 2), stride=(2, 1), padding=(1, 0)),
        (IMAGE,), (2 * 4 * 3 * 7) * (3 * 3 * 2),
    ),
    "aten.mm": (torch.mm, ((4, 5), (5, 6)), 4 * 5 * 6),
    "aten.bmm": (torch.bmm, ((2, 4, 5), (2, 5, 6)), 2 * 4 * 5 * 6),
    "aten.addmm": (torch.addmm, ((6,), (4, 5), (5, 6)), 4 * 5 * 6),
    "aten.max_pool2d_with_indices": (lambda x: F.max_pool2d(x, (2, 1)), (IMAGE,), 0),
    "aten.max_pool3d_with_indices": (lambda x: F.max_pool3d(x, 1, 2), ((1, 2, 4, 4, 4),), 0),
    "aten.avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), (IMAGE,), 0),
    "aten.avg_pool3d": (lambda x: F.avg_pool3d(x, 2), ((1, 2, 4, 4, 4),), 0),
    "aten._adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), (IMAGE,), 0),
    "aten.mean": (lambda x: x.mean((2, 3), keepdim=True), (IMAGE,), 0),
    "aten.sum": (lambda x: x.sum(1), (IMAGE,), 0),
    "aten._softmax": (lambda x: x.softmax(1), (ROWS,), 0),
    "aten._log_softmax": (lambda x: x.log_softmax(-1), (ROWS,), 0),
    "aten.view": (lambda x: x.view(2, 3, 48), (IMAGE,), 0),
    "aten._unsafe_view": (lambda x: torch.ops.aten._unsafe_view(x, [6, 48]), (IMAGE,), 0),
    "aten.unsqueeze": (lambda x: x.unsqueeze(1), (ROWS,), 0),
    "aten.squeeze": (lambda x: x.squeeze(1), ((4, 1, 5),), 0),
    "aten.t": (lambda x: x.t(), (ROWS,), 0),
    "aten.transpose": (lambda x: x.transpose(1, 3), (IMAGE,), 0),
    "aten.permute": (lambda x: x.permute(0, 2, 3, 1), (IMAGE,), 0),
    "aten.cat": (lambda x, y: torch.cat([x, y], 1), (IMAGE, IMAGE), 0),
}  # fmt: skip


def test_every_rule_has_a_case():
    assert CASES.keys() == RULES.keys()


def hull(changed):
    places = changed.nonzero()
    return None if len(places) == 0 else tuple((int(p.min()), int(p.max())) for p in places.T)


@pytest.mark.parametrize("key", CASES)
def test_a_rule_counts_by_hand_and_reads_what_changes_the_output(key):
    function, shapes, macs = CASES[key]
    torch.manual_seed(0)
    inputs = [torch.rand(s) + 0.5 for s in shapes]
    recording = record(Call(function), *inputs)
    op = next(o for o in recording.ops if o.target.rpartition(".")[0] == key)
    assert rule_of(op).macs(op) == macs
    base = function(*[x.clone() for x in inputs])
    unit = tuple(n // 2 for n in base.shape)
    for which, (value, x) in enumerate(zip(recording.inputs, inputs, strict=True)):
        changed = torch.zeros_like(x, dtype=torch.bool)
        for place in torch.cartesian_prod(*[torch.arange(n) for n in x.shape]).reshape(-1, x.ndim):
            moved = [t.clone() for t in inputs]
            moved[which][tuple(place)] += 0.25
            with torch.random.fork_rng():
                changed[tuple(place)] = function(*moved)[unit] != base[unit]
        box = reads(op, tuple((i, i) for i in unit), value)
        true = hull(changed)
        if box is not None:
            box = tuple((max(lo, 0), min(hi, n - 1)) for (lo, hi), n in zip(box, x.shape, strict=True))
        if key == "aten.max_pool2d_with_indices" or key.startswith(("aten.minimum", "aten.maximum")):
            assert all(b[0] <= t[0] and b[1] >= t[1] for b, t in zip(box, true or box, strict=True))
        elif key not in ("aten.copy_",) or true is not None:
            assert box == true


def test_an_unknown_operator_may_read_everything():
    recording = record(Call(lambda x: torch.cumsum(x, 1)), torch.zeros(2, 3))
    (op,) = recording.ops
    assert rule_of(op) is None
    assert reads(op, ((0, 0), (0, 0)), op.inputs[0]) == ((0, 1), (0, 2))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_grouped_convolution_reads_the_channels_of_its_group(groups):
    recording = record(nn.Conv2d(4, 8, 1, groups=groups), torch.zeros(1, 4, 2, 2))
    op = recording.ops[-1]
    unit = ((0, 0), (5, 5), (0, 0), (0, 0))
    size = 4 // groups
    assert reads(op, unit, op.inputs[0])[1] == (5 // (8 // groups) * size, 5 // (8 // groups) * size + size - 1)
