"""The picture of a network and the page: nothing is lost, nothing overlaps, nothing is fetched."""

import re
import xml.etree.ElementTree as ET

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope import record, summarize
from convscope.inspect import Flow, draw, flow, page
from convscope.inspect.flow import Box
from convscope.models import LeNet5

SVG = "{http://www.w3.org/2000/svg}"


def seen(model, *shape):
    recording = record(model.eval(), torch.zeros(1, *shape))
    return recording, summarize(recording)


def test_lenet_is_a_chain_of_its_layers():
    told = flow(*seen(LeNet5(), 1, 32, 32))
    names = ["input", *(f"features.{n}" for n in ("C1", "relu1", "S2", "C3", "relu3", "S4"))]
    assert [b.name for b in told.boxes][:7] == names
    assert told.arrows == tuple((i, i + 1) for i in range(len(told.boxes) - 1))
    assert sum(b.macs for b in told.boxes) == 416_520


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_boxes_hold_all_macs_and_a_residual_is_a_second_arrow(depth):
    recording, summary = seen(torchvision.models.resnet18(), 3, 64, 64)
    told = flow(recording, summary, depth=depth)
    assert sum(b.macs for b in told.boxes) == summary.total.macs
    into_add = [a for a, b in told.arrows if told.boxes[b].op == "add_"]
    assert (len(into_add) == 16) == (depth == 3)


def test_a_module_called_twice_is_two_boxes():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    told = flow(*seen(nn.Sequential(conv, nn.ReLU(), conv), 1, 5, 5))
    assert [b.op for b in told.boxes] == ["", "convolution", "relu", "convolution"]


@st.composite
def flows(draw):
    count = draw(st.integers(1, 14))
    boxes = tuple(Box(f"b{i}", "", "other", (1, i), 0, i) for i in range(count))
    pairs = draw(st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=24))
    return Flow(boxes, tuple(sorted((a, b) for a, b in pairs if a < b)))


@settings(max_examples=60, deadline=None)
@given(told=flows())
def test_no_box_lies_over_another_and_every_arrow_goes_down(told):
    root = ET.fromstring(draw(told))
    boxes = [r for r in root.iter(f"{SVG}rect") if r.get("class") is None]
    places = [(float(r.get("x")), float(r.get("y"))) for r in boxes]
    width, height = float(boxes[0].get("width")), float(boxes[0].get("height"))
    assert len(places) == len(told.boxes)
    for i, (x, y) in enumerate(places):
        assert all(abs(x - p) >= width or abs(y - q) >= height for p, q in places[:i])
    arrows = [p for p in root.iter(f"{SVG}path") if p.get("marker-end")]
    assert len(arrows) == len(told.arrows)
    for a, b in told.arrows:
        assert places[a][1] + height < places[b][1]


def test_the_page_needs_nothing_else_and_escapes_names():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("<b>", nn.Conv2d(1, 2, 3))

        def forward(self, x):
            return self._modules["<b>"](x)

    recording, summary = seen(Odd(), 1, 8, 8)
    text = page(summary, recording, title="<script>")
    assert "<script" not in text
    assert "<b>" not in text.replace("<b>20</b>", "").replace("<div><b>", "")
    assert re.findall(r'(?:src|href)="', text) == []
    assert "&lt;b&gt;" in text


def test_in_a_notebook_a_summary_is_the_tree_and_a_recording_its_operators():
    recording, summary = seen(LeNet5(), 1, 32, 32)
    assert summary._repr_html_().count("<details") == 2
    assert "417 k" in summary._repr_html_()
    assert recording._repr_html_().count("<tr>") == 1 + len(recording.ops)


class Loose(nn.Module):
    """A module between two runs of operators of its own."""

    def __init__(self, before, after):
        super().__init__()
        self.conv, self.before, self.after = nn.Conv2d(1, 1, 3, padding=1), before, after

    def forward(self, x):
        for _ in range(self.before):
            x = x + 1
        x = self.conv(x)
        for _ in range(self.after):
            x = x * 2
        return x


def test_many_operators_outside_of_modules_share_a_box_and_a_line_that_opens():
    recording, summary = seen(Loose(2, 9), 1, 5, 5)
    boxes = flow(recording, summary).boxes
    assert [(b.name, b.op) for b in boxes] == [
        ("input", ""), ("", "add"), ("", "add"), ("conv", "convolution"), ("9 operators", "")
    ]  # fmt: skip
    text = page(summary, recording, title="loose")
    assert text.count('<span class="op">add</span>') == 2
    assert text.count('<span class="name op">9 operators</span>') == 1
    assert text.count('<span class="op">mul</span>') == 9
