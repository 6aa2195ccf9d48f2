"""Formats: what is written in a file is what a sample holds, scaled to the training size."""

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

import folders
from convscope import data
from convscope.data.entries import Entry, part_of, split
from convscope.data.formats import recognise
from convscope.data.images import decode_image, decode_values
from convscope.data.outlines import polygon_mask, run_length_mask
from convscope.data.tree import walk
from convscope.data.turning import orientation, turned_array, turned_box
from convscope.errors import DataError, ImageError
from convscope.tasks import Detection

SHAPE = (3, 60, 20)  # twice as high, half as wide as the pictures


def _samples(root: Path, task: Any) -> list[data.Sample]:
    made = data.load(str(root), shape=SHAPE, task=task)
    return sorted((s for part in (made.train, made.val, made.test) for s in part.samples), key=lambda s: s.name)


corner = st.integers(0, folders.WIDTH - 11), st.integers(0, folders.HEIGHT - 11)
boxes = st.lists(st.tuples(*corner, st.floats(1, 10), st.floats(1, 10)), min_size=6, max_size=6)


@settings(max_examples=8)
@given(boxes)
def test_boxes_of_coco_are_those_of_the_file_scaled(drawn: list[tuple[float, ...]]) -> None:
    document = folders.coco_document()
    for annotation, box in zip(document["annotations"], drawn, strict=True):
        annotation["bbox"] = list(box)
    with tempfile.TemporaryDirectory() as folder:
        samples = _samples(folders.coco(Path(folder), document), "detect")
    for i, (sample, (x, y, width, height)) in enumerate(zip(samples, drawn, strict=True)):
        wanted = torch.tensor([[x / 2, 2 * y, (x + width) / 2, 2 * (y + height)]])
        torch.testing.assert_close(sample.boxes.as_subclass(torch.Tensor), wanted)
        assert sample.labels.tolist() == [i % 2]


def test_perfect_predictions_of_a_coco_folder_have_a_mean_precision_of_one(tmp_path: Path) -> None:
    test = data.load(str(folders.coco(tmp_path, count=20)), shape=(3, 64, 64), task="detect").test
    _, wanted = test.batch(torch.arange(len(test)))
    metrics = Detection(2).metrics()
    metrics.update(wanted, wanted)
    assert float(metrics.compute()["map"]) == pytest.approx(1)


points = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=3, max_size=5, unique=True)


@settings(max_examples=40)
@given(points)
def test_outlines_are_filled_as_pillow_fills_them(outline: list[tuple[int, int]]) -> None:
    """They may differ in what the outline itself runs through."""
    ours = polygon_mask([[v for p in outline for v in p]], height=30, width=40)
    drawn, edge = Image.new("L", (40, 30)), Image.new("L", (40, 30))
    ImageDraw.Draw(drawn).polygon(outline, fill=1)
    ImageDraw.Draw(edge).line([*outline, outline[0]], fill=1, width=5)
    unlike = ours != (np.asarray(drawn) > 0)
    assume(_simple(outline))
    assert not (unlike & (np.asarray(edge) == 0)).any()


def _simple(outline: list[tuple[int, int]]) -> bool:
    """Whether no two sides cross, since what is inside then depends on the rule."""

    def turn(a: Any, b: Any, c: Any) -> int:
        return int(np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])))

    n = len(outline)
    sides = [(outline[i], outline[(i + 1) % n]) for i in range(n)]
    return not any(
        turn(*p, q[0]) != turn(*p, q[1]) and turn(*q, p[0]) != turn(*q, p[1])
        for i, p in enumerate(sides)
        for j, q in enumerate(sides)
        if j > i and (j - i) % n not in (1, n - 1)
    )


def test_outlines_of_yolo_become_masks(tmp_path: Path) -> None:
    line = "0 0.1 0.2 0.6 0.2 0.6 0.8 0.1 0.8\n"
    folders.yolo(tmp_path, line)
    for i in range(1, 6):
        (tmp_path / "labels" / f"{i}.txt").write_text(line.replace("0 ", "1 ", 1))
    made = data.load(str(tmp_path), shape=(3, 30, 40), task="segment")
    assert made.train.classes == ("background", "cat", "dog")
    sample = next(s for p in (made.train, made.val, made.test) for s in p.samples if s.name == "images/0.png")
    wanted = np.zeros((30, 40), np.uint8)
    wanted[6:24, 4:24] = 1
    assert np.array_equal(sample.mask.numpy(), wanted)


def test_corners_of_voc_count_from_one_and_hold_their_last_pixel(tmp_path: Path) -> None:
    samples = _samples(folders.voc(tmp_path), "detect")
    assert samples[0].boxes.tolist() == [[2, 10, 7, 34]]  # 4..14 x 5..17 of the picture
    assert [int(s.labels[0]) for s in samples] == [1, 0, 1, 0, 1, 0]


masks = st.integers(1, 12).flatmap(
    lambda w: st.lists(st.lists(st.booleans(), min_size=w, max_size=w), min_size=1, max_size=9)
)


@given(masks)
def test_run_lengths_are_read_as_pycocotools_writes_them(rows: list[list[bool]]) -> None:
    from pycocotools import mask as oracle

    mask = np.array(rows, np.uint8)
    encoded = oracle.encode(np.asfortranarray(mask))
    rle = {"size": list(mask.shape), "counts": encoded["counts"].decode()}
    assert np.array_equal(run_length_mask(rle, height=mask.shape[0], width=mask.shape[1]), mask > 0)


def test_crowds_are_left_out_of_boxes_and_ignored_in_masks(tmp_path: Path) -> None:
    document = folders.coco_document()
    inside = [0, 3 * folders.HEIGHT, folders.HEIGHT * (folders.WIDTH - 3)]
    crowd = {"id": 9, "image_id": 0, "category_id": 1, "bbox": [0, 0, 3, 30], "iscrowd": 1}
    document["annotations"].append(
        crowd | {"segmentation": {"size": [folders.HEIGHT, folders.WIDTH], "counts": inside}}
    )
    folders.coco(tmp_path, document)
    assert len(_samples(tmp_path, "detect")[0].boxes) == 1
    mask = data.some(str(tmp_path), task="segment", shape=(3, 30, 40), count=6)[0]
    drawn = next(s.mask for s in mask.samples if s.name == "images/0.png")
    assert (drawn == 255).sum() == 90
    assert (drawn == 1).sum() == 120


@pytest.mark.parametrize("how", range(1, 9))
def test_boxes_and_masks_turn_with_their_picture(how: int) -> None:
    """Pillow's own turn is the oracle: the box is that of the turned mask."""
    mask = np.zeros((5, 7, 3), np.uint8)
    mask[1:3, 2:6] = 255
    image, file = Image.fromarray(mask), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = how
    image.save(file, "PNG", exif=exif)
    file.seek(0)
    picture = decode_image(file, source="a.png")
    assert orientation(picture) == how
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(file)))[..., 0] > 0
    assert np.array_equal(turned_array(mask[..., 0] > 0, how), wanted)
    ys, xs = wanted.nonzero()
    found = turned_box((2, 1, 6, 3), how, width=7, height=5)
    assert found == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_labels_of_a_stored_picture_turn_and_those_of_an_upright_one_stay(tmp_path: Path) -> None:
    document = folders.coco_document()
    folders.coco(tmp_path, document)
    exif = Image.Exif()
    exif[0x0112] = 6
    folders.picture(tmp_path / "images" / "0.png", exif=exif)
    stored = data.some(str(tmp_path), shape=(3, 40, 30), count=6)[0]
    box = next(s.boxes.tolist() for s in stored.samples if s.name == "images/0.png")
    assert box == [[13, 4, 25, 14]]
    document["images"][0] |= {"width": folders.HEIGHT, "height": folders.WIDTH}
    (tmp_path / "instances.json").write_text(json.dumps(document))
    upright = data.some(str(tmp_path), shape=(3, 40, 30), count=6)[0]
    assert next(s.boxes.tolist() for s in upright.samples if s.name == "images/0.png") == [[4, 5, 14, 17]]
    assert any("EXIF orientation 6" in f.what for f in data.check(tmp_path).findings)


def test_masks_with_a_palette_in_colours_and_as_indices_are_the_same(tmp_path: Path) -> None:
    values = np.zeros((30, 40), np.uint8)
    values[3:9, 4:20], values[20:, :] = 1, 2
    palette = Image.fromarray(values)
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 250])
    colours = np.array([[9, 9, 9], [200, 0, 0], [0, 0, 250]], np.uint8)[values]
    for name, image in (("p", palette), ("l", Image.fromarray(values)), ("c", Image.fromarray(colours))):
        names = "ground 9 9 9\nroad 200 0 0\nsky 0 0 250\n"
        root = folders.pairs(tmp_path / name, count=6, names=names)
        for i in range(6):
            image.save(root / "masks" / f"{i}.png")
        for sample in data.load(str(root), shape=(3, 30, 40), task="segment").train.samples:
            assert np.array_equal(sample.mask.numpy(), values)


@pytest.mark.parametrize(
    ("make", "task"), [(folders.coco, "segment"), (folders.yolo, "detect"), (folders.pairs, "segment")]
)
def test_batches_of_a_folder_can_be_augmented(make: Any, task: Any, tmp_path: Path) -> None:
    train = data.load(str(make(tmp_path)), shape=SHAPE, task=task).train
    numbers = torch.zeros(len(train), 6)
    x, targets = train.batch(torch.arange(len(train)), draws=numbers)
    plain, wanted = train.batch(torch.arange(len(train)))
    torch.testing.assert_close(x, plain, atol=0.01, rtol=0)
    for one, other in zip(targets, wanted, strict=True):
        assert torch.equal(one, other)


def test_a_table_gives_labels_and_boxes(tmp_path: Path) -> None:
    text = "filename,class\n" + "".join(f"{i}.png,{'dog' if i % 2 else 'cat'}\n" for i in range(20))
    made = data.load(str(folders.rows(tmp_path / "a", text, count=20)), shape=SHAPE)
    assert (len(made.train), len(made.val), len(made.test)) == (14, 2, 4)
    assert made.train.class_counts().tolist() == [7, 7]
    text = "file;label;xmin;ymin;xmax;ymax;split\n" + "".join(
        f"{i}.png;cat;1;2;11;12;{part}\n{i}.png;dog;20;2;30;12;{part}\n"
        for i, part in enumerate(["train", "val", "test"])
    )
    made = data.load(str(folders.rows(tmp_path / "b", text + "3.png;;;;;;train\n")), shape=SHAPE, task="detect")
    assert [len(s.boxes) for s in made.train.samples] == [2, 0]
    assert made.test.samples[0].boxes.tolist() == [[0.5, 4, 5.5, 24], [10, 4, 15, 24]]


def test_parts_come_from_names_of_folders_and_files(tmp_path: Path) -> None:
    for part, name in (("train", "train"), ("valid", "val"), ("test", "test")):
        root = folders.yolo(tmp_path / part, count=3)
        (root / "data.yaml").unlink()
        assert part_of(f"{part}/images/0.png") == name
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: {0: cat, 1: dog}\n")
    made = data.load(str(tmp_path), shape=SHAPE, task="detect")
    assert [len(p) for p in (made.train, made.val, made.test)] == [3, 3, 3]
    assert {s.name.split("/")[0] for s in made.val.samples} == {"valid"}


@given(st.lists(st.integers(0, 3), min_size=3, max_size=60), st.integers(0, 5))
def test_a_split_parts_all_and_is_the_same_again(labels: list[int], seed: int) -> None:
    entries = [Entry(f"{i}.png", "", labels=(label,)) for i, label in enumerate(labels)]
    made = split({"train": entries}, seed=seed)
    assert sorted(e.file for part in made.values() for e in part) == sorted(e.file for e in entries)
    assert all(made.values())
    assert made == split({"train": entries}, seed=seed)
    assert abs(len(made["test"]) - 0.2 * len(entries)) <= 1


@pytest.mark.parametrize(
    ("make", "name", "task"),
    [
        (folders.coco, "COCO JSON", "detect"), (folders.voc, "Pascal VOC", "detect"), (folders.yolo, "YOLO", "detect"),
        (folders.pairs, "pictures and masks", "segment"), (folders.classes, "class folders", "classify"),
    ],
)  # fmt: skip
def test_a_format_is_known_by_what_is_in_the_folder(make: Any, name: str, task: str, tmp_path: Path) -> None:
    make(tmp_path)
    chosen, usual = recognise(walk(tmp_path))
    assert (chosen.name, usual) == (name, task)
    report = data.check(tmp_path)
    assert report.clean, report.table()
    assert report.format == name


def test_a_format_that_does_not_serve_the_task_is_refused(tmp_path: Path) -> None:
    folders.voc(tmp_path / "a")
    with pytest.raises(DataError, match="holds Pascal VOC, which serve to detect, not to segment; "):
        data.load(str(tmp_path / "a"), shape=SHAPE, task="segment")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="is laid out in no known way; known: COCO JSON"):
        data.check(tmp_path / "b")
    file = io.BytesIO()
    Image.new("CMYK", (2, 2)).save(file, "TIFF")
    with pytest.raises(ImageError, match=r"m\.png: is stored as CMYK"):
        decode_values(io.BytesIO(file.getvalue()), source="m.png")
