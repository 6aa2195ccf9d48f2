"""A tree follows the largest terms to where they come from; a NaN is found where it began."""

import json

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from convscope import record
from convscope.errors import InputError
from convscope.explain import explain, first_nan, trace
from convscope.models import LeNet5
from convscope.table import to_json


def kept(model, x, keep=lambda op: True):
    return record(model.eval(), x, keep=keep)


def nodes(tree):
    yield tree
    for term in tree.terms:
        yield from nodes(term)


def depth_of(tree) -> int:
    return 1 + max(map(depth_of, tree.terms), default=0)


def test_each_value_stands_where_the_tree_says():
    torch.manual_seed(0)
    recording = kept(LeNet5(), torch.randn(1, 1, 32, 32))
    by_name = {v.name: recording.tensors[v.id] for op in recording.ops for v in op.inputs if v.role != "activation"}
    makers = {id(op): recording.tensors[op.outputs[0].id] for op in recording.ops}
    for node in nodes(trace(recording, "F6", unit=(0, 7), depth=20)):
        tensor = makers[id(node.op)] if node.op else by_name[node.source.partition("[")[0]]
        assert tensor[node.unit].item() == node.value
        assert not node.stop


def test_the_terms_are_the_largest_and_their_shares_add_up():
    torch.manual_seed(1)
    recording = kept(LeNet5(), torch.randn(1, 1, 32, 32))
    told = explain(recording, "C3", unit=(0, 5, 3, 4))
    tree = trace(recording, "C3", unit=(0, 5, 3, 4), depth=1, breadth=1000)
    parts = sorted([*np.abs(told.products).ravel(), abs(told.bias)], reverse=True)
    assert [abs(t.contribution) for t in tree.terms] == pytest.approx([p for p in parts if p])
    assert sum(t.share for t in tree.terms) == pytest.approx(1)
    assert sum(t.contribution for t in tree.terms) == pytest.approx(told.total)
    few = trace(recording, "C3", unit=(0, 5, 3, 4), depth=1, breadth=4)
    assert few.terms == tree.terms[:4]


def test_the_depth_counts_operators_and_a_deep_tree_ends_at_pixels_and_parameters():
    recording = kept(LeNet5(), torch.randn(1, 1, 32, 32))
    for depth in (1, 2, 4):
        assert depth_of(trace(recording, "F6", unit=(0, 7), depth=depth, breadth=2)) == depth + 1
    leaves = [n for n in nodes(trace(recording, "F6", unit=(0, 7), depth=20)) if not n.terms]
    assert {n.op for n in leaves} == {None}
    assert {n.source.partition("[")[0].rpartition(".")[2] for n in leaves} <= {"input", "bias", ""}


def test_text_and_data():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[0].bias.fill_(-1.0)
    tree = trace(kept(model, torch.ones(1, 1, 2, 2)), "1", unit=(0, 0, 1, 0), depth=2)
    assert str(tree).splitlines() == [
        "1[0, 0, 1, 0] = 1 by relu",
        "  100 %  1 from x: 0[0, 0, 1, 0] = 1 by convolution",
        "    67 %  2 from channel 0, tap 0,0: input[0, 0, 1, 0] = 1",
        "    33 %  −1 from bias: 0.bias[0] = −1",
    ]
    data = json.loads(to_json(tree.data()))
    assert data["op"] == "relu"
    assert [t["contribution"] for t in data["terms"][0]["terms"]] == [2, -1]


def test_a_value_of_zero_is_followed_to_what_made_it_zero():
    recording = kept(nn.Sequential(nn.ReLU(), nn.ReLU()), torch.tensor([-3.0]))
    (term,) = trace(recording, "1", unit=(0,)).terms
    assert (term.contribution, term.share, term.terms[0].value) == (0, 0, -3)


def test_a_tree_goes_through_residual_connections_and_normalisation():
    torch.manual_seed(0)
    recording = kept(torchvision.models.resnet18(weights=None), torch.rand(1, 3, 64, 64))
    tree = trace(recording, "fc", unit=(0, 3), depth=200, breadth=1)
    path = list(nodes(tree))
    assert path[-1].op is None
    assert {n.op.name for n in path if n.op} >= {"addmm", "view", "mean", "relu_", "native_batch_norm"}


def test_a_tree_says_where_it_cannot_go_on():
    x = torch.rand(1, 3, 4, 4) + 1
    recording = kept(nn.Sequential(nn.LPPool2d(2, 2), nn.ReLU()), x)
    assert {n.stop for n in nodes(trace(recording, "1", unit=(0, 0, 0, 0), depth=9))} == {"", "no explanation yet"}
    recording = kept(LeNet5(), torch.randn(1, 1, 32, 32), lambda op: op.module == "features.C3")
    assert {n.stop for n in nodes(trace(recording, "C3", unit=(0, 0, 0, 0)))} == {"", "not kept"}


def test_the_deepest_tree_that_is_allowed_prints():
    model = nn.Sequential(*(nn.ReLU() for _ in range(210)))
    tree = trace(kept(model, torch.ones(1)), "209", unit=(0,), depth=200)
    assert len(str(tree).splitlines()) == 201
    assert json.loads(to_json(tree.data()))["op"] == "relu"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"depth": 0}, "trace: depth is 0; use 1 to 200"),
        ({"depth": 201}, "trace: depth is 201; use 1 to 200"),
        ({"breadth": 0}, "trace: breadth is 0; use 1 to 10,000"),
        ({"depth": 20, "breadth": 30}, "grows beyond 10,000 values; use a smaller depth, or a breadth of 1"),
    ],
)
def test_what_cannot_be_traced_says_why(wrong, words):
    recording = kept(LeNet5(), torch.randn(1, 1, 32, 32))
    with pytest.raises(InputError, match=words):
        trace(recording, "F6", unit=(0, 7), **wrong)


def test_the_first_nan_is_found_where_it_began():
    class Roots(nn.Module):
        def forward(self, x):
            return torch.relu(torch.sqrt(x - 1) + 1)

    assert first_nan(kept(Roots(), torch.tensor([2.0]))) is None
    found = first_nan(kept(Roots(), torch.tensor([2.0, 0.5])))
    assert found is not None
    assert found.name == "sqrt"


def test_a_nan_in_a_parameter_or_the_input_is_found_where_it_is_first_read():
    model = LeNet5()
    with torch.no_grad():
        model.features.C3.weight[0, 0, 0, 0] = float("inf")
    for x, where in ((torch.rand(1, 1, 32, 32), "features.C3"), (torch.full((1, 1, 32, 32), torch.nan), "features.C1")):
        found = first_nan(kept(model, x))
        assert found is not None
        assert found.module == where


def test_a_tree_goes_through_the_right_part_of_a_split():
    class Second(nn.Module):
        def forward(self, x):
            return torch.relu(x.split(2, dim=1)[1])

    x = torch.arange(8.0).reshape(1, 4, 2)
    tree = trace(kept(Second(), x), 1, unit=(0, 1, 0))
    assert [n.source for n in nodes(tree)][-1] == "input[0, 3, 0]"
