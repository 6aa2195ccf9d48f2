"""attribute, patches, visualise, features --kernels and --statistics as a person meets them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convscope import visualise
from convscope.explain.attribution import METHODS


@pytest.fixture
def call(call, monkeypatch, tmp_path):
    """A command in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    return call


def picture(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def numbers(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def test_attribute_draws_prints_and_keeps_the_numbers(call):
    code, out, err = call("attribute", "LeNet5", "digits:3", "--target", 8)
    assert code == 0
    assert "digits:3: class 8, " in out
    assert "features.S4" in out
    assert "fresh random weights" in err
    assert picture("why.png").std() > 0
    kept = numbers("why.npz")
    assert (kept["picture"].shape, kept["grad-cam"].shape) == ((32, 32, 1), (32, 32))


def test_attribute_by_all_methods_as_json(call):
    code, out, _ = call("attribute", "LeNet5", "digits:3", "--method", "all", "--layer", "C3", "--json")
    data = json.loads(out)
    assert code == 0
    assert [m["method"] for m in data["methods"]] == [*METHODS]
    assert {m["layer"] for m in data["methods"]} == {None, "features.C3"}
    assert len({m["score"] for m in data["methods"]}) == 1
    assert 0 < data["probability"] < 1
    assert set(numbers("why.npz")) == {"picture", *METHODS}


def test_attribute_asks_about_the_likeliest_class_if_none_is_named(call):
    shares = [
        json.loads(call("attribute", "imagenet:efficientnet_lite0", "coffee", *target, "--json")[1])
        for target in ([], ["--target", "espresso"], ["--target", "cup"])
    ]
    assert shares[0]["class"] == "espresso"
    assert shares[0]["probability"] == shares[1]["probability"] > shares[2]["probability"]


def test_patches_are_drawn_for_each_channel(call):
    words = ["patches", "LeNet5", "--data", "digits", "--layer", "C3", "--channel", 5, "--channel", 0, "--top", 4]
    code, out, err = call(*words)
    assert code == 0
    assert "features.C3, channel 5: strongest of 360 pictures" in out
    assert err.count("wrote") == 2
    assert all(picture(f"patches/features.C3-{c}.png").std() > 0 for c in (0, 5))
    channels = json.loads(call(*words, "--json")[1])["channels"]
    assert [c["channel"] for c in channels] == [5, 0]
    values = [p["value"] for p in channels[0]["patches"]]
    assert values == sorted(values, reverse=True)
    assert len(values) == 4


def test_visualise_climbs_and_draws(call):
    words = ["visualise", "LeNet5", "--layer", "C3", "--channel", 5, "--steps", 12]
    code, out, err = call(*words)
    assert code == 0
    assert "features.C3" in out
    assert "wrote visualised.png" in err
    assert picture("visualised.png").std() > 0
    data = json.loads(call(*words, "--json")[1])
    assert (data["steps"], data["shape"]) == (12, [32, 32, 1])
    assert data["activation"] > data["first_activation"]


def test_ctrl_c_keeps_the_picture_so_far_and_exits_130(call, monkeypatch):
    whole = visualise.ascent

    def interrupted(*args, **options):
        for step, state in enumerate(whole(*args, **options)):
            if step == 4:
                raise KeyboardInterrupt
            yield state

    monkeypatch.setattr(visualise, "ascent", interrupted)
    code, out, err = call("visualise", "LeNet5", "--layer", "C3", "--channel", 5, "--json")
    assert code == 130
    assert "stopped after 3 of 256 steps" in err
    assert json.loads(out)["steps"] == 3
    assert picture("visualised.png").std() > 0


def test_ctrl_c_before_the_first_picture_writes_nothing(call, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(visualise, "ascent", interrupted)
    code, out, err = call("visualise", "LeNet5", "--layer", "C3", "--channel", 5)
    assert (code, out) == (130, "")
    assert "Traceback" not in err
    assert not Path("visualised.png").exists()


def test_kernels_are_drawn_and_kept(call):
    code, out, _ = call("features", "LeNet5", "--kernels", "--layer", "C1", "--layer", "C3", "--json")
    assert code == 0
    assert [r["layer"] for r in json.loads(out)["layers"]] == ["features.C1", "features.C3"]
    assert picture("features/kernels-features.C3.png").std() > 0
    assert numbers("features/kernels-features.C3.npz")["weights"].shape == (16, 6, 5, 5)
    assert "features.C1" in call("features", "LeNet5", "--kernels")[1]


def test_statistics_are_those_of_the_layers_outputs(call):
    words = ["features", "LeNet5", "--statistics", "--data", "digits", "--layer", "relu3"]
    code, out, _ = call(*words, "--json")
    (layer,) = json.loads(out)["layers"]
    assert code == 0
    assert layer["layer"] == "features.relu3"
    assert len(layer["channels"]) == 16
    assert all(0 <= c["zeros"] <= 1 and c["mean"] >= 0 for c in layer["channels"])
    assert "features.relu3" in call(*words)[1]
    assert not Path("features").exists()


def without_places():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10))


ATTRIBUTE, PATCHES = ["attribute", "LeNet5", "digits:3"], ["patches", "LeNet5", "--data", "digits"]
DENSE = ["attribute", f"{__name__}:without_places", "digits:3", "--input", "1x32x32"]
VISUALISE, FEATURES = ["visualise", "LeNet5"], ["features", "LeNet5"]
BAD = {
    "attribute: misspelt layer": ([*ATTRIBUTE, "--layer", "C33"], "did you mean 'C3'"),
    "attribute: layer without places": ([*ATTRIBUTE, "--layer", "F6"], "1x84 has no places to tell apart"),
    "attribute: no layer has places": (DENSE, "no layer has more than one place"),
    "attribute: class outside": ([*ATTRIBUTE, "--target", 10], "classes are 0 to 9"),
    "attribute: negative class": ([*ATTRIBUTE, "--target", "-1"], "the model has no such class"),
    "attribute: misspelt method": (
        [*ATTRIBUTE, "--method", "gradcam"],
        "use one of saliency, smooth-grad, integrated-gradients, occlusion, grad-cam, grad-cam++, all",
    ),
    "attribute: layer where none is asked": (
        [*ATTRIBUTE, "--method", "occlusion", "--layer", "C3"], "looks at no layer"),
    "attribute: box of a classifier": ([*ATTRIBUTE, "--box", 0], "learnt to classify, and gives no boxes"),
    "attribute: pixel of a classifier": ([*ATTRIBUTE, "--pixel", "1,2"], "learnt to classify, not to segment"),
    "attribute: pixel that is none": ([*ATTRIBUTE, "--pixel", "a,2"], "--pixel: 'a,2' is not whole numbers"),
    "patches: misspelt layer": ([*PATCHES, "--layer", "C33", "--channel", 0], "did you mean 'C3'"),
    "patches: channel outside": ([*PATCHES, "--layer", "C3", "--channel", 16], "has channels 0 to 15"),
    "patches: no data": (["patches", "LeNet5", "--layer", "C3", "--channel", 0], "--data: whose pictures is not said"),
    "patches: empty folder": (
        ["patches", "LeNet5", "--data", "empty", "--layer", "C3", "--channel", 0], "empty"),
    "patches: unknown part": ([*PATCHES, "--layer", "C3", "--channel", 0, "--part", "dev"], "use train, val or test"),
    "visualise: misspelt layer": ([*VISUALISE, "--layer", "C33", "--channel", 0], "did you mean 'C3'"),
    "visualise: channel outside": ([*VISUALISE, "--layer", "C3", "--channel", 16], "has channels 0 to 15"),
    "visualise: no steps": ([*VISUALISE, "--layer", "C3", "--channel", 0, "--steps", 0], "steps"),
    "features: kernels of a layer without": ([*FEATURES, "--kernels", "--layer", "S2"], "is no convolution"),
    "features: kernels of no layer": ([*FEATURES, "--kernels", "--layer", "C33"], "did you mean 'C3'"),
    "features: statistics of which layer": ([*FEATURES, "--statistics", "--data", "digits"], "give --layer"),
    "features: statistics of what": ([*FEATURES, "--statistics", "--layer", "C3"], "whose pictures is not said"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_no_file(name, call):
    Path("empty").mkdir()
    words, expected = BAD[name]
    code, out, err = call(*words)
    assert code == 2, err
    assert expected in err
    assert "Traceback" not in err
    assert out == ""
    assert [p for p in Path().rglob("*") if p.is_file()] == []
