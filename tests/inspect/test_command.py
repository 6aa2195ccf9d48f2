"""`convscope inspect`: what each option prints, the keys of its JSON, exit codes and sentences."""

import json

import pytest
from torch import nn

from convscope.cli.inspecting import inspected


@pytest.fixture
def call(call):
    return lambda *words: call("inspect", *words)


class Two(nn.Module):
    """Takes a picture and a vector."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)

    def forward(self, picture, vector):
        return self.conv(picture).mean((2, 3)) + self.linear(vector)


class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError("not today")


class Unknown(nn.Module):
    def forward(self, x):
        return x.logcumsumexp(1)


def test_json_has_totals_and_one_entry_an_operator(call):
    code, out, err = call("LeNet5", "--json")
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert data.keys() == {"model", "total", "operators", "input_shapes", "notes"}
    assert (data["total"]["params"], data["total"]["macs"]) == (61_706, 416_520)
    memory = data["total"]["memory"]
    assert memory.keys() >= {"peak", "needed", "held", "saved", "gradients", "at", "op"}
    assert memory["held"] == 4 * (61_706 + 32 * 32)
    assert data["total"]["training_memory"]["gradients"] == 4 * 61_706
    first = data["operators"][0]
    assert (first["module"], first["op"], first["output_shape"]) == ("features.C1", "convolution", [1, 6, 28, 28])
    assert (first["params"], first["macs"]) == (6 * 26, 6 * 28 * 28 * 25)
    field = first["receptive_field"]
    assert (field["size"], field["stride"], field["padding"]) == ([5, 5], [1, 1], [0, 0])
    assert (field["global_through"], sum(o["macs"] for o in data["operators"])) == ([], data["total"]["macs"])


def test_depth_sums_per_module(call):
    data = json.loads(call("LeNet5", "--depth", 1, "--json")[1])
    assert [m["path"] for m in data["modules"]] == ["features", "head"]
    assert sum(m["params"] for m in data["modules"]) == data["total"]["params"] == 61_706
    assert call("LeNet5", "--depth", 1)[1].splitlines()[0] == "LeNet5, input 1x1x32x32"


def test_against_shows_differences_alone(call):
    data = json.loads(call("torchvision:resnet34", "--against", "torchvision:resnet18", "--depth", 1, "--json")[1])
    assert {m["name"]: m["change"] for m in data["modules"]} == dict.fromkeys(
        ["layer1", "layer2", "layer3", "layer4"], "changed"
    )
    assert data["after"]["params"] - data["before"]["params"] == sum(m["params"] for m in data["modules"])
    assert call("LeNet5", "--against", "LeNet5")[1].startswith("LeNet5, input 1x1x32x32, against LeNet5")
    assert json.loads(call("LeNet5", "--against", "LeNet5", "--json")[1])["modules"] == []


def test_sizes(call):
    told = json.loads(call("torchvision:resnet18", "--sizes", "64,96x64", "--json")[1])["sizes"]
    assert [row["input_shape"] for row in told] == [[1, 3, 64, 64], [1, 3, 96, 64]]
    assert told[0]["macs"] < told[1]["macs"]


def test_advice_is_below_the_table(call):
    code, out, _ = call("torchvision:alexnet", "--advice")
    assert (code, "the least input is 63x63" in out) == (0, True)
    assert "the least input" not in call("torchvision:alexnet")[1]


def test_sums_per_module_show_what_is_seen(call):
    out = call("torchvision:efficientnet_b0", "--depth", 2)[1]
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("features")}
    assert rows["features.8"].endswith("851x851 + whole input  32x32")
    assert "dtype" not in out
    assert "trainable" not in out


def test_branches_out_of_line_are_named_with_the_advice(call):
    out = call("torchvision:resnet18", "--advice", "--input", "3x64x64")[1]
    assert "joins branches that look at different places" not in out
    out = call("timm:eca_nfnet_l0", "--advice", "--input", "3x64x64", "--depth", 1)[1]
    assert "stages.1.0: joins branches that look at different places, 2x2 px apart" in out


def test_pictures_at_once(call):
    one, two = (json.loads(call("LeNet5", "--batch", n, "--json")[1]) for n in (1, 2))
    assert two["input_shapes"] == [[2, 1, 32, 32]]
    assert two["total"]["macs"] == 2 * one["total"]["macs"]
    assert two["total"]["memory"]["held"] - one["total"]["memory"]["held"] == 4 * 32 * 32


def test_page_and_picture_are_written_and_said(call, tmp_path):
    page, picture = tmp_path / "new" / "net.html", tmp_path / "net.svg"
    code, _, err = call("LeNet5", "--html", page, "--graph", picture)
    assert code == 0
    assert err.splitlines() == [f"wrote {page}", f"wrote {picture}"]
    assert "59,134" in page.read_text()
    assert picture.read_text().startswith("<svg")


@pytest.mark.parametrize("option", ["--html", "--graph"])
def test_a_file_that_cannot_be_written_is_refused_before_the_model_is_made(option, call, tmp_path):
    (tmp_path / "file").touch()
    for wrong in (tmp_path, tmp_path / "file" / "net"):
        code, out, err = call("no.such:model", option, wrong)
        assert (code, out, "no.such" in err) == (2, "", False)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert "no.such" in call("no.such:model", option, tmp_path / "new" / "net")[2]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("spec", ["torchvision:resnet18", "timm:resnet18", "torchvision:ssdlite320_mobilenet_v3_large"])
def test_a_librarys_network_is_made_without_values_where_that_will_do(spec):
    made = inspected(spec, ["3x96x96"])
    on_meta = next(made.model.parameters()).is_meta
    assert on_meta != spec.endswith("ssdlite320_mobilenet_v3_large")
    assert made.summary.total.params == sum(p.numel() for p in made.model.parameters())
    assert any("fresh weights and an empty picture" in note for note in made.summary.notes) != on_meta


def test_several_inputs(call):
    data = json.loads(call(f"{__name__}:Two", "--input", "3x8x8", "--input", "5", "--json")[1])
    assert data["input_shapes"] == [[1, 3, 8, 8], [1, 5]]
    assert data["total"]["params"] == 3 * 4 * 9 + 4 + 5 * 4 + 4


def test_a_budget_that_is_kept_says_nothing(call):
    kept = ["--max-macs", "416520", "--max-params", "61.706K", "--max-memory", "1MiB", "--min-receptive-field", "16"]
    code, out, err = call("LeNet5", *kept)
    assert (code, err) == (0, "")
    assert "features.C1" in out


BROKEN = {
    "--max-macs": ("0.4M", "MACs: 416,520, but 400,000 are allowed"),
    "--max-params": ("61705", "parameters: 61,706, but 61,705 are allowed"),
    "--max-memory": ("100KiB", "peak memory: 0.2752 MiB at relu in features.relu1, but 0.09766 MiB are allowed"),
    "--min-receptive-field": ("40", "receptive field: 16 px at most, but 40 px are needed"),
}


@pytest.mark.parametrize("option", BROKEN)
def test_a_budget_that_is_broken_exits_3_with_a_sentence_and_still_prints(option, call):
    limit, sentence = BROKEN[option]
    code, out, err = call("LeNet5", option, limit, "--json")
    assert (code, err) == (3, f"convscope: {sentence}\n")
    assert json.loads(out)["total"]["params"] == 61_706


def test_all_that_is_broken_is_said(call):
    code, _, err = call("LeNet5", *(word for option, (limit, _) in BROKEN.items() for word in (option, limit)))
    assert (code, err.removeprefix("convscope: ").splitlines()) == (3, [said for _, said in BROKEN.values()])


def test_macs_without_a_rule_break_any_limit(call):
    code, out, err = call(f"{__name__}:Unknown", "--input", "4", "--max-macs", "1G")
    assert (code, err) == (3, "convscope: MACs: at least 0, but 1,000,000,000 are allowed\n")
    assert "no rule for logcumsumexp" in out


HERE = __name__
BAD = {
    "no such name": (["LeNet"], "did you mean 'LeNet5'?"),
    "no such function": (
        [f"{HERE}:Tow", "--input", "3x8x8"],
        "Tow': the module has no function of that name; did you mean 'Two'?",
    ),
    "no such network to compare with": (["LeNet5", "--against", "LeNet"], "did you mean 'LeNet5'?"),
    "channels that do not fit": (["LeNet5", "--input", "3x32x32"], "in convolution of 1x3x32x32, 6x1x5x5"),
    "the module is named": (["LeNet5", "--input", "3x32x32"], "features.C1 raised"),
    "a picture too small": (["LeNet5", "--input", "1x8x8"], "on input 1x1x8x8; check the input's shape"),
    "an input too few": ([f"{HERE}:Two", "--input", "3x8x8"], "missing a required argument: 'vector'"),
    "an input too many": (["LeNet5", *["--input", "1x32x32"] * 2], "give each of its inputs"),
    "a model that raises": ([f"{HERE}:Raises", "--input", "3"], "the model raised RuntimeError: not today"),
    "no amount": (["LeNet5", "--max-macs", "many"], "--max-macs: 'many' is no amount; use such as 600M"),
    "no unit": (["LeNet5", "--max-memory", "5X"], "--max-memory: '5X' is no amount"),
    "a negative amount": (["LeNet5", "--max-params", "-5"], "--max-params: '-5' is no amount"),
    "no size": (["LeNet5", "--sizes", "big"], "--sizes: 'big' is not whole numbers"),
    "three sides": (["LeNet5", "--sizes", "1x2x3"], "use such as 224,256 or 224x320"),
    "a size too small": (["LeNet5", "--sizes", "8"], "on input 1x1x8x8"),
    "no depth": (["LeNet5", "--depth", "0"], "greater than or equal to 1"),
    "a page that is a folder": (["LeNet5", "--html", "."], "give another --html"),
    "a picture that is a folder": (["LeNet5", "--graph", "."], "give another --graph"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_2(name, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, expected = BAD[name]
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert expected in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shapes"), {"r3d_18": [[1, 3, 16, 112, 112]], "raft_small": [[1, 3, 512, 512]] * 2}.items()
)
def test_clips_and_pairs_of_pictures_are_chosen_by_themselves(name, shapes, call):
    data = json.loads(call(f"torchvision:{name}", "--json")[1])
    assert data["input_shapes"] == shapes


def test_sizes_say_how_they_are_known(call):
    told = json.loads(call("torchvision:alexnet", "--sizes", "224,161x203", "--json")[1])
    assert [row["how"] for row in told["sizes"]] == ["recorded", "derived"]
    assert told["notes"][0].startswith("derived: from the recording at 1x3x224x224")
    code, out, _ = call("torchvision:lraspp_mobilenet_v3_large", "--sizes", "520,192")
    assert (code, "recorded anew: upsample_bilinear2d" in out) == (0, True)
    code, _, err = call(f"{__name__}:Two", "--input", "3x8x8", "--input", "5", "--sizes", "5")
    assert (code, err) == (0, "")
    assert call(f"{__name__}:Unknown", "--input", "5", "--sizes", "5")[2] == (
        "convscope: --sizes: the input is 1x5, which has no height and width; leave --sizes out\n"
    )


def test_advice_names_channels_that_cannot_matter(call):
    assert (
        "0: 1 of 4 channels can never matter (1 constant: 2); they hold 10 parameters"
        in call(f"{__name__}:half_dead", "--input", "1x8x8", "--advice")[1]
    )


def half_dead():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 1))
    model[0].weight.data[2] = 0
    return model.eval()
