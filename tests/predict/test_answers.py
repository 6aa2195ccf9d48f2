"""What is asked of detectors and segmenters: a box, a class, a pixel, with an untrained network and a tiny run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from convscope import data
from convscope.cli import app
from convscope.data.sets import Normalisation
from convscope.errors import InputError
from convscope.explain import attribute
from convscope.models.backbone import backbone
from convscope.models.heads import HeadedNetwork
from convscope.predict import answer, detect
from convscope.runs import TrainConfig
from convscope.runs.loaded import LoadedModel, load_model
from convscope.train import train
from tiny import CLASSES, SIZE, offer, tiny

TINY: dict[str, Any] = {"data": "tiny", "image_size": SIZE, "epochs": 12, "batch_size": 8, "num_threads": 1}
TINY |= {"device": "cpu", "channels_last": True, "lr": 0.004, "ema": 0.8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two trained run folders, and the first test picture as a file."""
    offer(data.DATASETS)  # pyright: ignore[reportArgumentType]
    root = tmp_path_factory.mktemp("runs")
    for task in ("detect", "segment"):
        train(TrainConfig(task=task, **TINY), out=root / task, progress=False)
    Image.fromarray(tiny("detect").test.samples[0].image.permute(1, 2, 0).numpy()).save(root / "p.png")
    yield root
    for task in ("detect", "segment"):
        del data.DATASETS[task]["tiny"]  # pyright: ignore[reportIndexIssue]


def ask(root: Path, task: str, *words: Any) -> dict[str, Any]:
    command = ["attribute", root / task, root / "p.png", "--out", root / "why.png", "--json", *words]
    told = CliRunner().invoke(app, [str(w) for w in command])
    assert told.exit_code == 0, (told.output, told.exception)
    return json.loads(told.stdout)


def maps(root: Path) -> dict[str, np.ndarray]:
    with np.load(root / "why.npz") as file:
        return dict(file)


def test_a_detector_is_asked_about_its_best_box_and_the_map_lies_there(runs: Path) -> None:
    loaded, best = load_model(str(runs / "detect")), ask(runs, "detect", "--method", "all")
    x = tiny("detect").test.batch(torch.tensor([0]))[0]
    found = detect(loaded.model, x, classes=CLASSES, names=["p"], sizes=[(SIZE, SIZE)]).rows
    assert best["class"] == found[0].label
    assert best["probability"] == pytest.approx(found[0].score, abs=1e-4)
    assert np.clip(best["box"], 0, SIZE) == pytest.approx(
        [found[0].x1, found[0].y1, found[0].x2, found[0].y2], abs=0.05
    )
    x1, y1, x2, y2 = (round(v) for v in np.clip(best["box"], 0, SIZE))
    kept = maps(runs)
    for method in ("occlusion", "grad-cam"):
        size = np.abs(kept[method])
        within = size[max(0, y1 - 6) : y2 + 6, max(0, x1 - 6) : x2 + 6].sum() / size.sum()
        assert within > 0.5, (method, within)
    assert np.abs(kept["saliency"]).sum() > 0
    assert {m["layer"] for m in best["methods"]} >= {None}


def test_other_boxes_and_classes_have_their_own_answers(runs: Path) -> None:
    loaded = load_model(str(runs / "detect"))
    x = tiny("detect").test.batch(torch.tensor([0]))[0]
    found = detect(loaded.model, x, classes=CLASSES, names=["p"], sizes=[(SIZE, SIZE)], threshold=0.02).rows
    second = ask(runs, "detect", "--box", 1)
    assert (second["class"], second["probability"]) == (found[1].label, pytest.approx(found[1].score, abs=1e-4))
    for name in CLASSES:
        told = answer(loaded, x, target=name)
        assert told.name == name
        assert told.probability == pytest.approx(max(f.score for f in found if f.label == name), abs=1e-4)
        assert answer(loaded, x, target=name, box=0).box == told.box


def test_the_score_is_the_logit_and_grad_cam_reads_the_boxs_own_map() -> None:
    torch.manual_seed(0)
    model = HeadedNetwork(backbone("small"), {"detect": 2}).eval()
    loaded = LoadedModel("net", model, (3, 64, 64), Normalisation(), ("a", "b"), True, "detect")
    x = torch.rand(1, 3, 64, 64)
    told = answer(loaded, x, target="b")
    with torch.no_grad():
        outputs = model(x)
    place = int(outputs.logits[0, :, 1].argmax())
    made = attribute(model, x, "grad-cam", target=told.target, layer=told.layer)
    assert made.score == pytest.approx(float(outputs.logits[0, place, 1]), abs=1e-5)
    assert made.cells is not None
    assert 64 // made.cells.shape[0] == int(outputs.strides[place])


def test_a_segmenter_is_asked_about_its_largest_class_but_the_background(runs: Path) -> None:
    loaded, told = load_model(str(runs / "segment")), ask(runs, "segment", "--method", "all")
    x = tiny("segment").test.batch(torch.tensor([0]))[0]
    with torch.no_grad():
        logits = loaded.model(x)[0]
    counts = torch.bincount(logits.argmax(0).flatten(), minlength=3)
    label = 1 + int(counts[1:].argmax())
    assert told["class"] == CLASSES[label - 1]
    assert told["share"] == pytest.approx(float(counts[label]) / SIZE**2, abs=1e-3)
    assert told["methods"][0]["score"] == pytest.approx(float(logits[label].sum()), rel=1e-3)
    assert ask(runs, "segment", "--target", "ground")["share"] > told["share"]


def test_a_pixel_is_asked_about_by_row_and_column(runs: Path) -> None:
    sample = tiny("segment").test.samples[0]
    row, column = (sample.mask == 1 + int(sample.labels[0])).nonzero().float().mean(0).long().tolist()
    told = ask(runs, "segment", "--pixel", f"{row},{column}", "--method", "saliency")
    assert told["class"] == CLASSES[int(sample.labels[0])]
    assert told["pixel"] == [row, column]
    assert told["probability"] > 0.5
    size = maps(runs)["saliency"]
    near = size[max(0, row - 16) : row + 17, max(0, column - 16) : column + 17].sum() / size.sum()
    assert near > 0.6
    found = ask(runs, "segment", "--pixel", f"{row},{column}", "--method", "grad-cam")["methods"][0]
    size = maps(runs)["grad-cam"]
    own = sample.mask.numpy() == sample.mask[row, column].item()
    assert size[own].mean() > 4 * size[~own].mean(), found["layer"]


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_patches_and_statistics_take_the_pictures_of_such_a_run(runs: Path, task: str) -> None:
    layer = ["--layer", "backbone.stages.1", "--json"]
    words = ["patches", str(runs / task), "--channel", "3", "--out", str(runs / "patches"), *layer]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, (told.output, told.exception)
    (grid,) = json.loads(told.stdout)["channels"]
    assert grid["images"] == 12
    told = CliRunner().invoke(app, ["features", str(runs / task), "--statistics", *layer])
    assert told.exit_code == 0, (told.output, told.exception)
    assert len(json.loads(told.stdout)["layers"][0]["channels"]) == 32


def test_what_is_not_there_is_said_in_a_sentence(runs: Path) -> None:
    detector, segmenter = load_model(str(runs / "detect")), load_model(str(runs / "segment"))
    x = torch.zeros(1, 3, SIZE, SIZE)
    asked: list[tuple[LoadedModel, dict[str, Any], str]] = [
        (detector, {"box": 500}, "--box 500: the network finds"),
        (detector, {"pixel": (1, 2)}, "learnt to detect, not to segment"),
        (detector, {"target": "dsc"}, "did you mean 'disc'"),
        (segmenter, {"box": 0}, "learnt to segment, and gives no boxes"),
        (segmenter, {"pixel": (1, 64)}, "the network's picture is 64x64; give row,column"),
        (segmenter, {"pixel": (1,)}, "give row,column"),
    ]
    for loaded, words, told in asked:
        with pytest.raises(InputError, match=told):
            answer(loaded, x, **words)
