"""Detection and segmentation from the data to the page: they learn, are measured, predict, and are drawn."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from convscope import data
from convscope.cli import app
from convscope.evaluate import Measured, evaluate_run
from convscope.report import write_report
from convscope.runs import TrainConfig, open_run
from convscope.train import train
from tiny import SIZE, offer, tiny

TINY: dict[str, Any] = {"data": "tiny", "image_size": SIZE, "epochs": 12, "batch_size": 8, "num_threads": 1}
TINY |= {"device": "cpu", "channels_last": True, "lr": 0.004, "ema": 0.8}


@pytest.fixture(scope="module", autouse=True)
def tiny_data() -> Any:
    offer(data.DATASETS)  # pyright: ignore[reportArgumentType]
    yield
    for task in ("detect", "segment", "detect,segment"):
        del data.DATASETS[task]["tiny"]  # pyright: ignore[reportIndexIssue]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any) -> dict[str, Measured]:
    told = {}
    for task in ("detect", "segment"):
        folder = tmp_path_factory.mktemp("run") / task
        train(TrainConfig(task=task, **TINY), out=folder, progress=False)
        told[task] = evaluate_run(folder)
    return told


def test_both_tasks_learn(runs: dict[str, Measured]) -> None:
    assert runs["segment"].evaluation.miou > 0.8
    assert runs["detect"].evaluation.map50 > 0.8
    for task, score in (("segment", "val_miou"), ("detect", "val_map")):
        rows = runs[task].run.metrics()
        assert rows[-1][score] > rows[0][score]
        assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]


def test_what_the_log_says_last_is_what_is_measured(runs: dict[str, Measured]) -> None:
    from convscope.evaluate import evaluate_detection, evaluate_segmentation

    val, row = tiny("segment").val, runs["segment"].run.metrics()[-1]
    assert evaluate_segmentation(runs["segment"].model, val).miou == pytest.approx(row["val_miou"], abs=1e-4)
    val, row = tiny("detect").val, runs["detect"].run.metrics()[-1]
    assert evaluate_detection(runs["detect"].model, val).map == pytest.approx(row["val_map"], abs=2e-3)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_the_report_draws_the_worst_cases_and_the_best(runs: dict[str, Measured], task: str, tmp_path: Path) -> None:
    measured = runs[task]
    page = write_report(tmp_path, measured).path.read_text()
    found = measured.evaluation
    value = found.map if task == "detect" else found.miou
    assert f"{100 * value:.2f} %" in page
    for index in (*found.worst[:7], found.worst[-1]):
        assert f"test picture {index}: what is there" in page
    assert page.count("what the network says") >= 8
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Test pictures at twice their size, in a folder."""
    for index, sample in enumerate(tiny("detect").test.samples[:3]):
        pixels = np.repeat(np.repeat(sample.image.permute(1, 2, 0).numpy(), 2, 0), 2, 1)
        Image.fromarray(pixels).save(tmp_path / f"p{index}.png")
    return tmp_path


def test_predict_finds_objects_in_the_pixels_of_the_file(runs: dict[str, Measured], pictures: Path) -> None:
    out = pictures / "out"
    command = ["predict", str(runs["detect"].run.folder), str(pictures), "--out", str(out), "--json"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    rows = json.loads(told.stdout)["objects"]
    true = tiny("detect").test.samples[0]
    own = [r for r in rows if r["image"].endswith("p0.png")]
    for (x1, y1, x2, y2), label in zip((2 * true.boxes).tolist(), true.labels.tolist(), strict=True):
        near = [r for r in own if abs(r["x1"] - x1) + abs(r["y1"] - y1) + abs(r["x2"] - x2) + abs(r["y2"] - y2) < 24]
        assert ("square", "disc")[label] in {r["label"] for r in near}
    assert {p.name for p in out.iterdir()} == {
        "predictions.json",
        "predictions.csv",
        "coco.json",
        "p0.png",
        "p1.png",
        "p2.png",
    }
    coco = json.loads((out / "coco.json").read_text())
    assert [i["height"] for i in coco["images"]] == [2 * SIZE] * 3
    assert len(coco["annotations"]) == len(rows) == len((out / "predictions.csv").read_text().splitlines()) - 1
    with Image.open(out / "p0.png") as drawn:
        assert min(drawn.size) >= 384


def test_a_higher_threshold_finds_fewer(runs: dict[str, Measured], pictures: Path) -> None:
    counts = []
    for threshold in ("0", "0.4", "1"):
        command = [
            "predict",
            str(runs["detect"].run.folder),
            str(pictures / "p0.png"),
            "--threshold",
            threshold,
            "--json",
        ]
        counts.append(len(json.loads(CliRunner().invoke(app, command).stdout)["objects"]))
    assert counts[0] > counts[1] > counts[2] == 0


def test_predict_tells_the_classes_of_pixels(runs: dict[str, Measured], pictures: Path) -> None:
    command = ["predict", str(runs["segment"].run.folder), str(pictures / "p*.png"), "--json"]
    rows = json.loads(CliRunner().invoke(app, command).stdout)["regions"]
    for index, sample in enumerate(tiny("detect").test.samples[:3]):
        own = {r["label"]: r["pixels"] for r in rows if r["image"].endswith(f"p{index}.png")}
        assert sum(own.values()) == (2 * SIZE) ** 2
        assert own["ground"] == pytest.approx(4 * int((sample.mask == 0).sum()), rel=0.15)


def test_evaluate_and_train_from_the_command_line(tmp_path: Path, runs: dict[str, Measured]) -> None:
    settings = [w for k, v in TINY.items() for w in ("--set", f"{k}={str(v).lower()}")]
    told = CliRunner().invoke(app, ["train", "segment", "--epochs", "1", "--out", str(tmp_path / "run"), *settings])
    assert told.exit_code == 0, told.output
    assert "val miou" in told.stdout
    assert open_run(tmp_path / "run").config.task == "segment"
    told = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run")])
    assert told.exit_code == 0, told.output
    assert "mIoU" in told.stdout
    assert (tmp_path / "run" / "report.html").exists()


def test_weights_of_one_task_begin_the_other_and_a_frozen_backbone_stays(
    tmp_path: Path, runs: dict[str, Measured]
) -> None:
    first = runs["segment"].run.folder / "model.safetensors"
    config = TrainConfig(task="detect", **TINY | {"epochs": 1, "weights": str(first), "freeze": True})
    run = train(config, out=tmp_path, progress=False)
    own, other = run.model().state_dict(), runs["segment"].model.state_dict()
    backbone = [k for k in own if k.startswith("backbone.")]
    assert backbone
    assert all(torch.equal(own[k], other[k]) for k in backbone)
