"""Small data sets written into a folder, whole ones, for tests to damage."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30


def picture(path: Path, *, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> Path:
    """A picture like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def coco_document(count: int = 6) -> dict[str, Any]:
    outline = [4, 5, 14, 5, 14, 17, 4, 17]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(count)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [4, 5, 10, 12], "segmentation": [outline]}
            for i in range(count)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def coco(root: Path, document: Any = None, *, count: int = 6) -> Path:
    for i in range(count):
        picture(root / "images" / f"{i}.png", seed=i)
    (root / "instances.json").write_text(json.dumps(coco_document(count) if document is None else document))
    return root


def yolo(root: Path, lines: str = "0 0.5 0.5 0.2 0.4\n", *, count: int = 6, names: str = "names: [cat, dog]\n") -> Path:
    """`lines` are those of the first picture."""
    for i in range(count):
        picture(root / "images" / f"{i}.png", seed=i)
        label = root / "labels" / f"{i}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("1 0.25 0.25 0.5 0.5\n" if i else lines)
    (root / "data.yaml").write_text(names)
    return root


VOC = """<annotation>
<filename>{i}.png</filename><size><width>{w}</width><height>{h}</height></size>
<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>6</ymin><xmax>{x2}</xmax><ymax>17</ymax></bndbox></object>
</annotation>"""


def voc(root: Path, *, x1: str = "5", x2: str = "14", count: int = 6) -> Path:
    (root / "Annotations").mkdir(parents=True)
    for i in range(count):
        picture(root / "JPEGImages" / f"{i}.png", seed=i)
        corners = {"x1": x1, "x2": x2} if i == 0 else {"x1": "5", "x2": "14"}
        text = VOC.format(i=i, w=WIDTH, h=HEIGHT, name="cat" if i % 2 else "dog", **corners)
        (root / "Annotations" / f"{i}.xml").write_text(text)
    return root


def pairs(root: Path, values: Any = None, *, count: int = 6, names: str = "ground\nroad\n") -> Path:
    """`values` is the first mask."""
    usual = np.zeros((HEIGHT, WIDTH), np.uint8)
    usual[5:20, 3:30] = 1
    for i in range(count):
        picture(root / "images" / f"{i}.jpg", seed=i)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(usual if values is None or i else np.asarray(values)).save(root / "masks" / f"{i}.png")
    (root / "classes.txt").write_text(names)
    return root


def classes(root: Path, *, count: int = 10, names: tuple[str, ...] = ("cat", "dog")) -> Path:
    for at, name in enumerate(names):
        for i in range(count):
            picture(root / name / f"{i}.png", seed=100 * at + i)
    return root


def rows(root: Path, text: str, *, count: int = 6) -> Path:
    for i in range(count):
        picture(root / f"{i}.png", seed=i)
    (root / "labels.csv").write_text(text)
    return root
