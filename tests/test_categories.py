"""A data set's own numbers of classes stay with the run, its exported file and its answers; classes go by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from convscope.cli import app
from convscope.data import ImageSet, load
from convscope.errors import DataError
from convscope.evaluate import evaluate_run
from convscope.export import export
from convscope.runs import TrainConfig, open_run
from convscope.runs.loaded import load_model
from convscope.train import train
from tiny import SIZE, tiny

NUMBERS = {"square": 17, "disc": 90}


def _coco(root: Path, numbers: dict[str, int], *, order: list[str], count: int = 12) -> None:
    """The tiny pictures as COCO has them; masks are left out."""
    root.mkdir()
    samples, names = tiny("detect").test.samples[:count], ("square", "disc")
    images, annotations = [], []
    for at, sample in enumerate(samples):
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(root / f"{at}.png")
        images.append({"id": at, "file_name": f"{at}.png", "width": SIZE, "height": SIZE})
        for box, label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True):
            if names[label] in numbers:
                x1, y1, x2, y2 = box
                annotations.append({"id": len(annotations), "image_id": at, "category_id": numbers[names[label]]}
                                   | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": 1, "iscrowd": 0})  # fmt: skip
    categories = [{"id": numbers[name], "name": name} for name in order]
    facts = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    _coco(root / "set", NUMBERS, order=["square", "disc"])
    config = TrainConfig(
        task="detect", data=str(root / "set"), image_size=SIZE, epochs=40, batch_size=4, num_threads=1, device="cpu"
    )
    return train(config, out=root / "run", progress=False).folder


def test_the_numbers_are_kept_and_told(run: Path, tmp_path: Path) -> None:
    assert open_run(run).categories == NUMBERS
    export(load_model(str(run)), tmp_path / "net.onnx")
    for model in (run, tmp_path / "net.onnx"):
        assert load_model(str(model)).categories == NUMBERS
        words = ["predict", str(model), str(run.parent / "set" / "0.png"), "--threshold", "0.05"]
        told = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "told")])
        assert told.exit_code == 0, told.output
        coco = json.loads((tmp_path / "told" / "coco.json").read_text())
        assert coco["categories"] == [{"id": 17, "name": "square"}, {"id": 90, "name": "disc"}]
        named = {17: "square", 90: "disc"}
        objects = json.loads((tmp_path / "told" / "predictions.json").read_text())["objects"]
        assert objects
        assert [named[a["category_id"]] for a in coco["annotations"]] == [o["label"] for o in objects]


def test_other_data_may_number_classes_otherwise(run: Path, tmp_path: Path) -> None:
    own = run.parent / "set"
    _coco(tmp_path / "turned", {"square": 2, "disc": 1}, order=["disc", "square"])
    assert load(str(tmp_path / "turned"), shape=(3, SIZE, SIZE), task="detect").test.classes == ("disc", "square")
    one, other = (evaluate_run(run, data=str(at)).evaluation for at in (own, tmp_path / "turned"))
    assert other.map == one.map
    assert [c.objects for c in other.per_class] == [c.objects for c in one.per_class]
    _coco(tmp_path / "fewer", {"disc": 1}, order=["disc"])
    fewer = evaluate_run(run, data=str(tmp_path / "fewer")).evaluation
    assert [c.objects > 0 for c in fewer.per_class] == [False, True]
    _coco(tmp_path / "more", {"disc": 1, "square": 2, "star": 3}, order=["disc", "square", "star"])
    with pytest.raises(DataError, match="has classes disc, square, star, but"):
        evaluate_run(run, data=str(tmp_path / "more"))


def test_masks_and_labels_are_renamed() -> None:
    both = tiny("segment").test
    renamed = both.as_classes(("ground", "star", "disc", "square"))
    old, new = (s.batch(torch.arange(len(both)))[1].numpy() for s in (both, renamed))
    assert np.array_equal(np.array([0, 3, 2])[old], new)
    images = ImageSet(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), ("a", "b"))
    assert images.as_classes(("b", "c", "a")).labels.tolist() == [2, 0]
