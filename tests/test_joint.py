"""Detection and segmentation by one network, from the command line to the page."""

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
from convscope.errors import ConfigError, DataError, InputError
from convscope.evaluate import EVALUATIONS, Measured, evaluate_run
from convscope.export import export
from convscope.models import HeadedNetwork, backbone
from convscope.predict import Together, predict_any
from convscope.predict.drawing import colours
from convscope.report import write_report
from convscope.runs import TrainConfig, open_run, resolve
from convscope.runs.loaded import load_model
from convscope.train import train
from tiny import SIZE, offer, tiny

TINY: dict[str, Any] = {"task": "detect,segment", "data": "tiny", "image_size": SIZE, "epochs": 12, "batch_size": 8}
TINY |= {"num_threads": 1, "device": "cpu", "channels_last": True, "lr": 0.004, "ema": 0.8}


@pytest.fixture(scope="module", autouse=True)
def tiny_data() -> Any:
    before = {task: dict(known) for task, known in data.DATASETS.items()}
    offer(data.DATASETS)  # pyright: ignore[reportArgumentType]
    yield
    data.DATASETS.update(before)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any) -> Measured:
    folder = tmp_path_factory.mktemp("run") / "both"
    train(TrainConfig(**TINY), out=folder, progress=False)
    return evaluate_run(folder)


def test_one_network_learns_both(measured: Measured) -> None:
    assert measured.evaluation.of["detect"].map50 > 0.8
    assert measured.evaluation.of["segment"].miou > 0.8
    rows = measured.run.metrics()
    for row in rows:
        assert row["val_score"] == pytest.approx((row["val_detect_map"] + row["val_segment_miou"]) / 2)
        assert row["train_loss"] == pytest.approx(row["train_detect_loss"] + row["train_segment_loss"], rel=1e-5)
    assert rows[-1]["val_score"] > rows[0]["val_score"]


def test_each_head_is_judged_as_a_network_of_that_head_alone(measured: Measured) -> None:
    both = measured.model.state_dict()
    for task, score in (("detect", "map"), ("segment", "miou")):
        alone = HeadedNetwork(backbone("small"), {task: len(tiny(task).test.classes)}).eval()
        alone.load_state_dict({k: v for k, v in both.items() if k in alone.state_dict()})
        found, told = EVALUATIONS[task](alone, tiny(task).test), measured.evaluation.of[task]
        assert getattr(found, score) == getattr(told, score)
        assert found.confusion == told.confusion
    assert measured.evaluation.score == (measured.evaluation.data()["detect"]["map"] + told.miou) / 2


def test_the_page_shows_both(measured: Measured, tmp_path: Path) -> None:
    page = write_report(tmp_path, measured).path.read_text()
    for task, value in (("detect", "map"), ("segment", "miou")):
        found = measured.evaluation.of[task]
        assert f"{100 * getattr(found, value):.2f} %" in page
        assert f"Class by class ({task})" in page
    assert page.count("what the network says") >= 16
    assert "mean of mAP and mIoU" in page


def test_predict_tells_and_draws_both(measured: Measured, tmp_path: Path) -> None:
    pixels = tiny("detect").test.samples[0].image.permute(1, 2, 0).numpy()
    Image.fromarray(np.repeat(np.repeat(pixels, 2, 0), 2, 1)).save(tmp_path / "p.png")
    command = ["predict", str(measured.run.folder), str(tmp_path / "p.png"), "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert "Objects" in told.stdout
    assert "Regions" in told.stdout
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {"predictions.json", "objects.csv", "regions.csv", "coco.json", "p.png"}
    rows = json.loads((out / "predictions.json").read_text())
    assert sum(r["pixels"] for r in rows["regions"]) == (2 * SIZE) ** 2
    assert {r["label"] for r in rows["regions"]} >= {"ground"}
    assert {r["label"] for r in rows["objects"]} <= {"square", "disc"}
    with Image.open(out / "p.png") as drawn:
        shown = np.asarray(drawn.convert("RGB")).astype(int)
    colour = dict(zip(("ground", "square", "disc"), colours(3), strict=True))
    for r in rows["objects"]:  # the frame lies where the box is: 384 px are drawn for 128
        x, y = round(3 * r["x1"]), round(1.5 * (r["y1"] + r["y2"]))
        frame = np.abs(shown[y, max(x - 3, 0) : x + 4] - colour[r["label"]]).sum(1).min()
        assert frame == 0


def test_the_commands_take_the_tasks_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = TINY | {"epochs": 1}
    settings = [w for k, v in given.items() if k != "task" for w in ("--set", f"{k}={str(v).lower()}")]
    settings += ["--set", "task_weights={segment = 2}"]
    told = CliRunner().invoke(app, ["train", "segment, detect", *settings])
    assert told.exit_code == 0, told.output
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "detect-segment"
    config = open_run(folder).config
    assert (config.task, config.task_weights) == ("detect,segment", {"segment": 2.0})
    row = open_run(folder).metrics()[0]
    assert row["train_loss"] == pytest.approx(row["train_detect_loss"] + 2 * row["train_segment_loss"], rel=1e-5)
    told = CliRunner().invoke(app, ["evaluate", str(folder)])
    assert told.exit_code == 0, told.output
    assert "Evaluation: detect" in told.stdout
    assert "mIoU" in told.stdout
    assert (folder / "report.html").exists()


def test_it_is_exported_and_the_file_does_the_same(measured: Measured, tmp_path: Path) -> None:
    file = tmp_path / "both.onnx"
    written = export(load_model(str(measured.run.folder)), file)
    assert {a.output for a in written.agreement} >= {"detect.logits", "detect.boxes", "segment.output"}
    assert written.score == "score"
    assert written.scores == pytest.approx((measured.evaluation.score,) * 2, abs=1e-3)
    again = evaluate_run(file)
    assert again.evaluation.of["segment"].miou == pytest.approx(measured.evaluation.of["segment"].miou, abs=1e-3)
    loaded, x = load_model(str(file)), torch.rand(1, 3, SIZE, SIZE)
    told = predict_any(loaded, x, names=["a"], sizes=[(SIZE, SIZE)])
    assert isinstance(told, Together)
    assert told.regions.classes == ("ground", "square", "disc")
    assert told.objects.classes == ("square", "disc")


def test_what_does_not_go_together_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'task' \(from options\) is 'detect,detect', but input should be 'classify'"
    ):
        resolve({"task": "detect,detect"})
    with pytest.raises(ConfigError, match=r"'task_weights' .* greater than 0"):
        resolve({"task": "detect,segment"}, ["task_weights={segment = 0}"])
    with pytest.raises(InputError, match="task_weights: are for several tasks, but segment is one; leave them out"):
        train(TrainConfig(**TINY | {"task": "segment", "task_weights": {"segment": 2.0}}), out=tmp_path, progress=False)
    with pytest.raises(DataError, match="is a folder, which is read for one task at a time; train detect,segment on"):
        train(TrainConfig(**TINY | {"data": str(tmp_path)}), out=tmp_path / "c", progress=False)
    with pytest.raises(InputError, match="are for classify and segment"):
        train(TrainConfig(**TINY | {"class_weights": "root"}), out=tmp_path / "b", progress=False)


def test_weights_of_one_task_begin_both(measured: Measured, tmp_path: Path) -> None:
    config = TrainConfig(**TINY | {"epochs": 1, "task": "detect", "freeze": True})
    weights = str(measured.run.folder / "model.safetensors")
    run = train(config.model_copy(update={"weights": weights}), out=tmp_path, progress=False)
    own, other = run.model().state_dict(), measured.model.state_dict()
    assert all(torch.equal(own[k], other[k]) for k in own if k.startswith("backbone."))


@pytest.mark.parametrize("task", ["classify,detect,segment", "classify,segment"])
def test_a_head_that_classifies_goes_with_the_others(task: str, tmp_path: Path) -> None:
    config = TrainConfig(**TINY | {"task": task, "epochs": 10, "model": "small", "seed": 1})
    folder = train(config, out=tmp_path / "run", progress=False).folder
    told = CliRunner().invoke(app, ["evaluate", str(folder), "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found.keys() == {"score", *task.split(",")}
    assert found["classify"]["accuracy"] > 0.6
    assert len(found["classify"]["per_class"]) == 2
    page = (folder / "report.html").read_text()
    assert "What it confuses (classify)" in page
    assert "mean of accuracy and" in page
    pixels = tiny("detect").test.samples[0].image.permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "p.png")
    told = CliRunner().invoke(app, ["predict", str(folder), str(tmp_path / "p.png"), "--out", str(tmp_path / "out")])
    assert told.exit_code == 0, told.output
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {r["label"] for r in rows["predictions"]} == {"square", "disc"}
    assert (tmp_path / "out" / "p.png").exists()
    exported = export(load_model(str(folder)), tmp_path / "all.onnx")
    assert "classify.output" in {a.output for a in exported.agreement}
    assert exported.scores == pytest.approx((found["score"],) * 2, abs=1e-3)


def test_the_network_runs_once_for_all_heads(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    forward = type(measured.model).forward
    monkeypatch.setattr(type(measured.model), "forward", lambda self, x: counts.append(len(x)) or forward(self, x))
    EVALUATIONS["detect,segment"](measured.model, measured.images)
    assert sum(counts) == len(measured.images)
    counts.clear()
    loaded = load_model(str(measured.run.folder))
    names = [str(i) for i in range(40)]
    told = predict_any(loaded, torch.rand(40, 3, SIZE, SIZE), names=names, sizes=[(SIZE, SIZE)] * 40)
    assert counts[-2:] == [32, 8]
    assert list(told.names) == names
    assert {r.image for r in told.regions.rows} == {*names}
