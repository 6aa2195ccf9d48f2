"""Totals and rows against published numbers."""

import json
import time

import pytest
import torch
from torch import nn

from convscope import record, summarize
from convscope.graph import RULES, OpRule
from convscope.models import build, input_shape
from convscope.table import to_json

# parameters, MACs: the networks' papers and definitions; torchvision's from its weight tables (num_params, _ops)
PUBLISHED = {
    "LeNet5": (61_706, 416_520),
    "ConvNet3": (4_088_778, 431_342_720),
    "torchvision:resnet18": (11_689_512, 1_814_073_344),
    "torchvision:resnet50": (25_557_032, 4_089_184_256),
    "torchvision:mobilenet_v2": (3_504_872, 300_774_272),
    "torchvision:vgg16": (138_357_544, 15_470_264_320),
}

NOTHING_ELSE = {"global_through": (), "bound": False, "phases": False}


def summary_of(spec):
    model = build(spec)
    return summarize(record(model, torch.zeros(1, *input_shape(model, spec))))


@pytest.mark.parametrize("spec", PUBLISHED)
def test_totals_are_the_published_ones(spec):
    total = summary_of(spec).total
    assert (total.params, total.macs) == PUBLISHED[spec]
    assert total.trainable_params == total.params
    assert total.unknown == ()


def test_rows_add_up_to_the_total_and_prepared_weights_are_credited_to_the_product():
    summary = summary_of("LeNet5")
    assert sum(o.params for o in summary.operators) == summary.total.params
    assert {o.op for o in summary.operators if o.params} == {"convolution", "addmm"}


def test_lenet5_row_by_row():
    rows = {o.module: o for o in summary_of("LeNet5").operators if o.receptive_field}
    c3 = rows["features.C3"]
    assert (c3.output_shape, c3.params, c3.macs) == ((1, 16, 10, 10), 2_416, 240_000)
    assert c3.receptive_field == {"size": (14, 14), "stride": (2, 2), "padding": (0, 0)} | NOTHING_ELSE
    assert rows["head.F5"].receptive_field["global_through"] == ("head.F5",)
    assert rows["head.output"].receptive_field["global_through"] == ("head.F5",)


def test_shared_weights_count_once_and_unused_ones_are_named():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(conv, conv)
    summary = summarize(record(model, torch.zeros(1, 2, 8, 8)))
    assert summary.total.params == 2 * 2 * 9 + 2
    assert [o.params for o in summary.operators] == [38, 0]
    assert summary.notes == ()


class Spare(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 3)

    def forward(self, x):
        return self.used(x)


def test_parameters_that_nothing_reads_are_named_and_still_counted():
    summary = summarize(record(Spare(), torch.zeros(1, 2)))
    assert summary.total.params == 6 + 9
    assert summary.notes == ("parameters that no operator read: spare.weight, spare.bias",)


class Odd(nn.Module):
    def forward(self, x):
        return torch.logcumsumexp(x, 1).erfinv()


def test_an_operator_without_a_rule_is_named_and_the_total_is_a_lower_bound():
    recording = record(Odd(), torch.zeros(1, 4))
    summary = summarize(recording)
    assert summary.total.unknown == ("erfinv", "logcumsumexp")
    assert "≥ 0" in str(summary)
    assert "no rule for erfinv, logcumsumexp" in str(summary)
    mine = {"aten.logcumsumexp": OpRule(macs=lambda op: 4), "aten.erfinv": OpRule()}
    widened = summarize(recording, rules=RULES | mine)
    assert (widened.total.macs, widened.total.unknown) == (4, ())


def test_data_is_what_json_readers_expect():
    data = json.loads(to_json(summary_of("torchvision:resnet18").data()))
    assert data["total"]["params"] == 11_689_512
    first = data["operators"][0]
    assert {"module", "op", "output_shape", "params", "macs", "receptive_field"} <= first.keys()
    local = {"size": [7, 7], "stride": [2, 2], "padding": [3, 3]}
    assert first["receptive_field"] == local | {"global_through": [], "bound": False, "phases": False}


def test_the_table_says_that_phases_differ_and_what_is_a_bound():
    up = nn.Sequential(nn.ConvTranspose2d(1, 1, 3, 2))
    text = str(summarize(record(up, torch.zeros(1, 1, 4, 4))))
    assert "2x2" in text
    assert "their largest receptive field" in text
    odd = str(summarize(record(Odd(), torch.zeros(1, 4))))
    assert "≤ 4" in odd
    assert "units may see less" in odd


def test_ten_thousand_operators_take_about_ten_times_as_long_as_a_thousand():
    seconds = {}
    for count in (1_000, 10_000):
        layers = [nn.Conv1d(1, 1, 3, padding=1) if i % 2 else nn.ReLU() for i in range(count)]
        start = time.process_time()
        summary = summarize(record(nn.Sequential(*layers), torch.zeros(1, 1, 16)))
        seconds[count] = time.process_time() - start
    assert seconds[10_000] < 40 * seconds[1_000]
    assert len(summary.operators) == 10_000
    assert summary.total.macs == 5_000 * 16 * 3
