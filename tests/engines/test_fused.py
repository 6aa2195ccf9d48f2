"""The file of a fused network: names of operators, and tensors; it runs on any machine, and is refused if damaged."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from convscope.clock import cache
from convscope.engines import Card, FusedModel, fused_from, program_of
from convscope.engines.fused import fusing
from convscope.engines.fused.program import GRAPH, OPERATORS
from convscope.errors import ModelError
from convscope.graph import record
from convscope.layers.fast import compiled, operators

X = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    parts = (nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 32, 1))
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5), nn.Softmax(1)).eval()


@pytest.fixture(scope="module")
def made(network):
    card = Card("classify", None, (16, 16, 16), (0.5,), (0.25,), ("output",))
    return FusedModel(program_of(network, X), card, batch=2)


def header(content):
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


def changed(content, change):
    """The file with its list of operators changed."""
    said = header(content)
    graph = json.loads(said[GRAPH])
    change(graph)
    return save(load(content), said | {GRAPH: json.dumps(graph)})


def test_what_is_read_gives_what_was_written(network, made):
    with torch.no_grad():
        for x in (X, X[:1], X.repeat(3, 1, 1, 1)):
            torch.testing.assert_close(fused_from(made.content(), source="m")(x), network(x))
    assert fused_from(made.content(), source="m").counts == made.counts


def test_a_batch_without_a_picture_gives_no_answer(made):
    assert made(X[:0]).shape == (0, 5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_it_computes(network, made):
    made(X)  # from then on the size is held ready
    traced = torch.jit.trace(made, torch.zeros_like(X), check_trace=False)
    with torch.no_grad():
        torch.testing.assert_close(traced(X), network(X))


def test_it_holds_the_network_as_it_was_before_it_was_fused(made):
    nodes = json.loads(header(made.content())[GRAPH])["nodes"]
    called = {n["target"].split(".")[1] for n in nodes if n["op"] == "call_function" and "." in n["target"]}
    assert {"conv2d", "_native_batch_norm_legit_no_training", "max_pool2d", "linear"} <= called <= OPERATORS


def test_a_machine_without_a_compiler_runs_it_and_says_so(network, made, monkeypatch):
    absent = (None, "there is no g++")
    monkeypatch.setattr(compiled, "_built", lambda: absent)
    there = fused_from(made.content(), source="m")
    assert there.notes == ("without our own kernels (there is no g++), somewhat slower than with them",)
    assert (there.counts["oneDNN"], there.counts["Winograd"], there.counts["own pooling"]) == (2, 0, 0)
    with torch.no_grad():
        torch.testing.assert_close(there(X), network(X))


def test_what_was_measured_is_kept_for_the_next_time(made, monkeypatch, tmp_path):
    if operators.kernels() is None:
        pytest.skip("there is nothing to choose from")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def first(runs, conv, *, added):
        asked.append((conv.shape, *runs))
        return next(iter(runs))

    monkeypatch.setattr(fusing, "_fastest", first)
    for _ in range(2):
        fused_from(made.content(), source="m")
    assert sorted(asked) == sorted({*asked})
    assert len([*cache.folder().glob("fused-*.json")]) == len(asked) > 0


def test_it_is_recorded_as_the_operators_that_it_stands_for(network, made):
    own, found = (record(model, X) for model in (network, made))
    assert [v.shape for v in found.outputs] == [v.shape for v in own.outputs]
    assert [op.name for op in found.ops if "conv" in op.name] == [op.name for op in own.ops if "conv" in op.name]


def test_bfloat16_is_said_by_the_card(network, made):
    half = FusedModel(made.program, replace(made.card, precision="bf16"), batch=2)
    there = fused_from(half.content(), source="m")
    assert there.card.precision == "bf16"
    with torch.no_grad():
        torch.testing.assert_close(there(X), network(X), rtol=0, atol=2e-3)
        assert not torch.equal(there(X), made(X))


@pytest.mark.parametrize(
    "target",
    ["aten.from_file.default", "aten.conv2d.__class__", "os.system", "getattr", "aten.conv2d", "aten.nothing.default"],
)
def test_no_other_operator_is_called(made, target):
    def change(graph):
        next(n for n in graph["nodes"] if n["op"] == "call_function")["target"] = target

    with pytest.raises(ModelError, match=r"m: its list of operators is damaged|no file holds the operator"):
        fused_from(changed(made.content(), change), source="m")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_list_is_one_sentence(made, data):
    def change(graph):
        node = data.draw(st.sampled_from(graph["nodes"]))
        field = data.draw(st.sampled_from(["op", "target", "args", "name"]))
        node[field] = data.draw(st.sampled_from(["x", [], [{"node": "nobody"}], 7, None, [[1, 2]], {"torch": "ones"}]))

    with suppress(ModelError):
        assert fused_from(changed(made.content(), change), source="m")(X).dtype == torch.float32


@pytest.mark.parametrize("settings", [{"format": 99}, {"batch": 0}, {"batch": "many"}, {"batch": 10**9}])
def test_settings_that_cannot_be_are_refused(made, settings):
    with pytest.raises(ModelError, match=r"later format|is damaged"):
        fused_from(changed(made.content(), lambda graph: graph.update(settings)), source="m")


class Buffered(nn.Module):
    """Changes a tensor of its own whenever it runs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        return x * self.get_buffer("seen").add_(1)


class Odd(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


def test_what_no_file_holds_is_named():
    card = Card("classify", None, (1, 4, 4), (0.5,), (0.25,), ("output",))
    with pytest.raises(ModelError, match=r"no file holds the operator aten\.\w*svd"):
        FusedModel(program_of(Odd(), torch.randn(2, 1, 4, 4)), card, batch=1).content()
    with pytest.raises(ModelError, match="the network changes its own seen"):
        program_of(Buffered(), torch.randn(2, 1, 4, 4))
