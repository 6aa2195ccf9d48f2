"""Times are held to work whose time is known: operators and modules that sleep."""

import time
from math import prod
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from convscope.clock import Limits
from convscope.errors import InputError
from convscope.graph import record
from convscope.graph.traffic import is_view, moved_bytes
from convscope.profile import profile
from convscope.profile.measure import _matched

LIMITS = Limits("a machine", 1, "1.0", {"float32": 1e9, "bfloat16": 2e9}, ((2**20, 1e9),), 1e-6)
NAP, PAUSE = 0.03, 0.05


@torch.library.custom_op("convscope_tests::nap", mutates_args=())
def nap(x: torch.Tensor) -> torch.Tensor:
    time.sleep(NAP)
    return x.clone()


@nap.register_fake
def _(x):
    return torch.empty_like(x)


class Sleepy(nn.Module):
    """A convolution, an operator that takes a nap, and a pause that is no operator's."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)

    def forward(self, x):
        time.sleep(PAUSE)
        return nap(self.conv(x))


@pytest.fixture(scope="module")
def sleepy():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine can be slower than a nap
    try:
        return profile(Sleepy(), torch.zeros(1, 2, 8, 8), limits=LIMITS, rounds=3)
    finally:
        torch.set_num_threads(threads)


def test_an_operator_takes_its_own_time_inside_and_alone(sleepy):
    conv, asleep = sleepy.ops
    assert [t.op.name for t in sleepy.ops] == ["convolution", "nap"]
    assert asleep.inside.least >= NAP
    assert asleep.alone is not None
    assert asleep.alone.least >= NAP
    assert conv.inside.least < NAP
    assert (conv.op.module, asleep.op.module) == ("conv", "")


def test_what_is_no_operators_is_the_rest(sleepy):
    assert sleepy.whole.least >= NAP + PAUSE
    assert sleepy.rest >= PAUSE / 2
    assert sleepy.inside + sleepy.rest == pytest.approx(sleepy.whole.median)
    assert "ms beyond them (Python, modules)" in sleepy.table().text()


def test_the_least_is_a_call_and_the_longer_of_arithmetic_and_memory(sleepy):
    conv, asleep = sleepy.ops
    assert conv.macs == 2 * 3 * 9 * 36
    assert conv.bytes == 4 * (2 * 64 + 3 * 2 * 9 + 3 + 3 * 36)
    assert conv.least == pytest.approx(1e-6 + max(conv.macs / 1e9, conv.bytes / 1e9))
    assert conv.bound == "arithmetic"
    assert (asleep.macs, asleep.bound, asleep.bytes) == (None, "call" if asleep.bytes < 1000 else "memory", 2 * 4 * 108)


def test_the_table_begins_with_what_takes_longest_and_adds_up(sleepy):
    shown = sleepy.table(top=1)
    assert [r["op"] for r in shown.rows] == ["nap"]
    assert shown.total is not None
    assert shown.total["inside"] == pytest.approx(sleepy.inside * 1e3)
    assert shown.notes[0].startswith("1 more operators: ")


def test_data_is_in_seconds(sleepy):
    data = sleepy.data()
    assert data["operators"][1]["inside"]["median"] == sleepy.ops[1].inside.median
    assert data["total"]["seconds"]["median"] == sleepy.whole.median


def test_nothing_of_the_model_is_changed():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout()).eval()
    x = torch.randn(1, 1, 6, 6)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    kept = x.clone()
    torch.manual_seed(3)
    found = profile(model, x, limits=LIMITS, rounds=3)
    assert torch.equal(x, kept)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(p.grad is not None for p in model.parameters())
    assert [t.op.name for t in found.ops] == ["convolution", "native_batch_norm", "relu_"]
    assert torch.backends.mha.get_fastpath_enabled()


def test_alike_operators_are_timed_once():
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)), nn.Conv2d(2, 2, 1))
    first, second, third, other = profile(model, torch.zeros(1, 2, 8, 8), limits=LIMITS, rounds=3).ops
    assert first.alone is second.alone is third.alone
    assert other.alone is not first.alone


def test_without_alone_only_the_network_runs():
    assert profile(nn.ReLU(), torch.zeros(3), limits=LIMITS, rounds=3, alone=False).ops[0].alone is None


def test_a_dtype_without_a_limit_is_held_to_float32():
    found = profile(nn.Conv1d(1, 1, 3).double(), torch.zeros(1, 1, 9).double(), limits=LIMITS, rounds=3)
    assert found.ops[0].bound == "call"


def test_laps_of_operators_that_the_recording_left_out_are_passed_over():
    recording = record(nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.ReLU()), torch.zeros(2))
    laps = [("aten.empty.memory_format", 9.0), ("aten.relu.default", 1.0), ("aten.zeros.default", 9.0)]
    laps += [("aten.sigmoid.default", 2.0), ("aten.relu.default", 3.0)]
    assert list(_matched(recording, laps)) == [(0, 1.0), (1, 2.0), (2, 3.0)]


class Shapes(nn.Module):
    def forward(self, x):
        y = x.view(6, 4).t()
        y = y + y
        return y.relu_()


def test_bytes_are_those_of_inputs_once_and_outputs_and_none_of_views():
    recording = record(Shapes(), torch.zeros(2, 3, 4))
    moved = {op.name: moved_bytes(recording, op) for op in recording.ops}
    assert moved == {"view": 0, "t": 0, "add": 2 * 4 * 24, "relu_": 2 * 4 * 24}
    assert [is_view(op) for op in recording.ops] == [True, True, False, False]


def test_bytes_count_each_dtype_by_its_size():
    recording = record(nn.Linear(8, 3, bias=False).bfloat16(), torch.zeros(2, 8, dtype=torch.bfloat16))
    op = recording.ops[-1]
    assert moved_bytes(recording, op) == 2 * sum(prod(v.shape) for v in (*op.inputs, *op.outputs))


def test_a_model_that_is_not_on_the_processor_is_refused():
    class Elsewhere(nn.Conv2d):
        def parameters(self, recurse=True):
            return iter([SimpleNamespace(device=torch.device("cuda"))])

    with pytest.raises(InputError, match=r"the model is on cuda, .* bring the model and its input to the CPU"):
        profile(Elsewhere(1, 1, 1), torch.zeros(1, 1, 2, 2), limits=LIMITS)
