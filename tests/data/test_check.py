"""What is wrong with a folder: found with its file and line, and refused by training in the same words."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import folders
from convscope import data
from convscope.data.findings import SHOWN, Findings, Report
from convscope.errors import ConvscopeError, DataError

SHAPE = (3, 24, 24)


def _found(report: Report) -> list[str]:
    return [f"{f.where}: {f.what}" for f in report.findings]


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * ['*' + before])}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)  # a billion of them


def _refuses(root: Path, said: str, *, task: str | None = None) -> None:
    """The check lists it as a thing that stops, and training stops at it, pointing to the check."""
    report = data.check(root, task=task)
    stops = [f"{f.where}: {f.what}; {f.mend}" for f in report.findings if f.stops]
    assert any(said in s for s in stops), report.table()
    assert not report.clean
    with pytest.raises(ConvscopeError) as caught:
        data.load(str(root), shape=SHAPE, task=report.task)  # pyright: ignore[reportArgumentType]
    assert "convscope data check" in str(caught.value)
    assert any(str(caught.value).startswith(s[:20]) for s in stops) or said in str(caught.value)


def _tells(root: Path, said: str, *, task: str | None = None) -> None:
    """The check tells it, and training goes on."""
    report = data.check(root, task=task)
    assert any(said in s for s in _found(report)), report.table()
    assert report.clean, report.table()
    data.load(str(root), shape=SHAPE, task=report.task)  # pyright: ignore[reportArgumentType]


# Files and folders


def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads every folder, so the system's answer is played; a class must not vanish in silence."""
    root, listed = folders.classes(tmp_path, names=("cat", "dog", "eel")), os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for read in (data.check, lambda path: data.load(str(path), shape=SHAPE)):
        with pytest.raises(DataError, match=r"dog: cannot be read \(Permission denied\); check its permissions"):
            read(root)


def test_all_empty_classes_are_listed_at_once(tmp_path: Path) -> None:
    root = folders.classes(tmp_path, names=("cat", "dog"))
    for name in ("bee", "eel"):
        (root / name).mkdir()
    _refuses(root, "no pictures in the classes bee, eel")


def test_links_are_not_followed_and_each_file_counts_once(tmp_path: Path) -> None:
    root = folders.classes(tmp_path / "set")
    (root / "cat" / "loop").symlink_to(root / "cat")
    (root / "cat" / "secret.png").symlink_to("/etc/passwd")
    (root / "cat" / "again.png").symlink_to(root / "cat" / "0.png")
    report = data.check(root)
    assert report.parts == {"train": 20}
    assert [s for s in _found(report) if "is a link" in s] == [
        f"cat/{n}: is a link" for n in ("again.png", "loop", "secret.png")
    ]
    made = data.load(str(root), shape=SHAPE)
    assert sum(map(len, (made.train, made.val, made.test))) == 20


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../x.png", "..\\secret.png"])
def test_a_picture_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folders.picture(tmp_path / "secret.png")
    document = folders.coco_document()
    document["images"][0]["file_name"] = name
    root = folders.coco(tmp_path / "set", document)
    report = data.check(root)
    assert any("instances.json: images[0]: the picture" in s for s in _found(report)), report.table()
    assert not report.clean
    with pytest.raises(DataError, match=r"instances\.json: images"):
        data.load(str(root), shape=SHAPE, task="detect")


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    root = folders.classes(tmp_path)
    for name in ("cat/._0.png", "cat/Thumbs.db", "dog/.DS_Store", "__MACOSX/cat/x.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\5\x16\7")
    _tells(root, "4 files that a system left behind")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cat/0.png: is empty (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "cat/0.png: looks like a Git LFS pointer"),
        (None, "cat/0.png: is cut short or damaged"),
    ],
)
def test_damaged_pictures_stop_at_the_start(tmp_path: Path, content: bytes | None, said: str) -> None:
    root = folders.classes(tmp_path)
    whole = (root / "cat" / "0.png").read_bytes()
    (root / "cat" / "0.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    _refuses(root, said)


def test_names_with_spaces_quotes_and_signs_are_names(tmp_path: Path) -> None:
    root = folders.classes(tmp_path, names=("größe 1", 'a"b%20'))
    report = data.check(root)
    assert report.clean
    assert report.classes == {'a"b%20': 10, "größe 1": 10}
    assert json.loads(report.table().json())["rows"] == []


def test_one_class_and_one_sample_are_too_few(tmp_path: Path) -> None:
    _refuses(folders.classes(tmp_path / "a", names=("cat",)), "has 1 class folders")
    _refuses(folders.classes(tmp_path / "b", count=1), "too few samples")
    _refuses(folders.rows(tmp_path / "c", "file,label\n0.png,cat\n1.png,cat\n2.png,cat\n"), "has 1 classes")
    _refuses(folders.coco(tmp_path / "d", folders.coco_document(1), count=1), "holds 1 pictures with labels; give 3")


def test_the_same_picture_in_train_and_test_is_told(tmp_path: Path) -> None:
    for part in ("train", "test"):
        folders.classes(tmp_path / part)
    for at, file in enumerate(sorted((tmp_path / "test").rglob("*.png"))):
        folders.picture(file, seed=1000 + at)
    same = (tmp_path / "train" / "cat" / "3.png").read_bytes()
    (tmp_path / "test" / "dog" / "5.png").write_bytes(same)
    with Image.open(tmp_path / "train" / "cat" / "4.png") as noise:
        smooth = noise.resize((12, 9)).resize((320, 240), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "train" / "cat" / "4.png")
    smooth.save(tmp_path / "test" / "cat" / "7.jpg", quality=80)
    found = _found(data.check(tmp_path))
    assert found == [
        "test/dog/5.png: is the same picture as train/cat/3.png, in train too",
        "test/cat/7.jpg: is nearly the same picture as train/cat/4.png, in train too",
    ]
    assert data.check(tmp_path).clean


# COCO


def _coco(root: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = folders.coco_document()
    change(document)
    return folders.coco(root, document)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["annotations"][2].pop("image_id"), "instances.json: annotations[2]: has no image_id"),
        (lambda d: d["annotations"][2].update(image_id=77), "annotations[2]: image_id 77 is no picture's"),
        (lambda d: d["annotations"][2].update(category_id=9), "annotations[2]: category_id 9 is no category"),
        (lambda d: d["images"][1].update(id=0), "images[1]: image id 0 occurs twice"),
        (lambda d: d["images"][1].update(file_name="z.png"), "images[1]: there is no picture 'z.png'"),
        (lambda d: d["categories"][1].update(id=1), "categories[1]: category id 1 occurs twice"),
        (lambda d: d["annotations"][2].update(bbox=[1, 2, 3]), "annotations[2]: has no bbox of four numbers"),
        (
            lambda d: d["annotations"][2].update(bbox=[5, 5, 0, 4]),
            "[2]: box (5, 5, 5, 9) has no width or height",
        ),
        (
            lambda d: d["annotations"][2].update(bbox=[50, 5, 9, 4]),
            "box (50, 5, 59, 9) lies outside the picture",
        ),
        (lambda d: d["annotations"][2].update(bbox=[5, 5, -3, 4]), "box (5, 5, 2, 9) ends before it begins"),
        (lambda d: d["annotations"][2].update(bbox=[5, 5, float("nan"), 4]), "box (5, 5, nan, 9) holds NaN"),
        (lambda d: d["images"][1].update(width=400), "images[1]: says that images/1.png is 400x30, but it is 40x30"),
        (lambda d: d.update(annotations=[]), "not one picture has a box"),
        (lambda d: d.update(annotations=None), "instances.json: lacks the list 'annotations'"),
    ],
)
def test_what_is_wrong_in_coco_is_named(tmp_path: Path, change: Callable[[Any], object], said: str) -> None:
    _refuses(_coco(tmp_path, change), said, task="detect")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["annotations"].pop(2), "1 pictures have no annotation"),
        (lambda d: d["annotations"][2].update(id=1), "annotations[2]: annotation id 1 occurs twice"),
        (lambda d: d["annotations"][2].update(bbox=[30, 5, 30, 4]), "box (30, 5, 60, 9) reaches beyond the picture"),
        (lambda d: d["annotations"][2].update(iscrowd=1), "annotations[2]: is a crowd, not one object"),
        (lambda d: d["categories"].append({"id": 9, "name": "eel"}), "no picture shows the classes eel"),
    ],
)
def test_what_is_odd_in_coco_is_told(tmp_path: Path, change: Callable[[Any], object], said: str) -> None:
    _tells(_coco(tmp_path, change), said, task="detect")


def test_gaps_in_categories_are_closed_and_the_map_is_told(tmp_path: Path) -> None:
    document = folders.coco_document()
    document["categories"][1]["id"] = 90
    for annotation in document["annotations"][1::2]:
        annotation["category_id"] = 90
    root = folders.coco(tmp_path, document)
    _tells(root, "category ids have gaps or another start: 1 -> 0, 90 -> 1")
    assert data.check(root).data()["categories"] == {"cat": 1, "dog": 90}


def test_a_segmentation_that_is_none_is_named(tmp_path: Path) -> None:
    root = _coco(tmp_path, lambda d: d["annotations"][2].update(segmentation=[[1, 2, 3, 4]]))
    _refuses(root, "instances.json: annotations[2]: an outline has 4 numbers", task="segment")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    root = folders.coco(tmp_path)
    os.truncate(root / "instances.json", 2**31)  # a hole: no disk is used
    _refuses(root, "instances.json: has 2,147,483,648 bytes; the limit is 536,870,912", task="detect")


# YOLO


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("0 0.5 0.5 0.2 0.4\n0 1.5 0.5 0.2 0.2\n", "labels/0.txt:2: '1.5' is not within 0 to 1"),
        ("0 0.5 -0.5 0.2 0.4\n", "labels/0.txt:1: '-0.5' is not within 0 to 1"),
        ("0 0.5 nan 0.2 0.4\n", "labels/0.txt:1: 'nan' is not within 0 to 1"),
        ("\n0 0.5 0.5 0.2\n", "labels/0.txt:2: has 4 columns"),
        ("0 0.5 0.5 0.2 0.2 0.9\n", "labels/0.txt:1: has 6 columns"),
        ("7 0.5 0.5 0.2 0.2\n", "labels/0.txt:1: class '7' is none of the 2 (0 to 1)"),
        ("-1 0.5 0.5 0.2 0.2\n", "labels/0.txt:1: class '-1' is none of the 2"),
        ("0 0.5 0.5 0 0.2\n", "labels/0.txt:1: box (20, 12, 20, 18) has no width or height"),
    ],
)
def test_what_is_wrong_in_yolo_is_named_with_its_line(tmp_path: Path, lines: str, said: str) -> None:
    _refuses(folders.yolo(tmp_path, lines), said)


def test_an_empty_file_is_background(tmp_path: Path) -> None:
    root = folders.yolo(tmp_path, "")
    assert data.check(root).findings[0].what == "no picture shows the classes cat"
    assert any(not len(s.boxes) for s in data.some(str(root))[0].samples)
    (root / "labels" / "0.txt").unlink()
    _tells(root, "1 pictures have no text file")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("names: [cat, cat]", "data.yaml: names cat twice"),
        ("names: {0: cat, 2: dog}", "data.yaml: names have gaps"),
        ("names: [cat, dog]\nnc: 3", "data.yaml: says nc: 3, but names 2 classes"),
        ("names: [cat\n", "data.yaml:2: is no plain YAML"),
        ("names: !!python/object/apply:os.system [ls]", "data.yaml:1: is no plain YAML"),
        (LAUGHS + "names: [cat, dog]\nnc: *i", "data.yaml:2: is no plain YAML (an alias, which is not read)"),
        ("path: .", "data.yaml: there are no class names"),
    ],
)
def test_what_is_wrong_in_the_yaml_is_named(tmp_path: Path, names: str, said: str) -> None:
    _refuses(folders.yolo(tmp_path, names=names), said)


# VOC, masks and tables


@pytest.mark.parametrize(
    ("corners", "said"),
    [
        ({"x1": "9", "x2": "3"}, "Annotations/0.xml:3: box (9, 6, 3, 17) ends before it begins"),
        ({"x1": "nan"}, "Annotations/0.xml:3: box (nan, 6, 14, 17) holds NaN"),
        ({"x1": "x"}, "Annotations/0.xml:3: an object has no name, or no bndbox"),
        ({"x1": "90", "x2": "99"}, "Annotations/0.xml:3: box (89, 5, 99, 17) lies outside"),
        ({"x1": "<b>"}, "Annotations/0.xml:3: is no XML"),
    ],
)
def test_what_is_wrong_in_voc_is_named_with_its_line(tmp_path: Path, corners: dict[str, str], said: str) -> None:
    _refuses(folders.voc(tmp_path, **corners), said)


def test_entities_are_refused(tmp_path: Path) -> None:
    root = folders.voc(tmp_path)
    bomb = '<!DOCTYPE a [<!ENTITY x "ha">]>\n<annotation><filename>&x;</filename></annotation>'
    (root / "Annotations" / "0.xml").write_text(bomb)
    _refuses(root, "Annotations/0.xml:1: declares a document type or an entity")


def test_values_of_masks_that_are_no_class_are_counted(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[0, :3], mask[1, :2], mask[2:4] = 200, 3, 255
    _refuses(
        folders.pairs(tmp_path / "a", mask), "masks/0.png: holds values that are no class: 3 (2 pixels), 200 (3 pixels)"
    )
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[0, :7] = (1, 2, 3)
    root = folders.pairs(tmp_path / "b", colours, names="ground 0 0 0\nroad 9 9 9\n")
    _refuses(root, "masks/0.png: holds colours of no class: (1, 2, 3) (7 pixels)")
    _refuses(folders.pairs(tmp_path / "c", colours), "masks/0.png: is in colours, but no file says which class each is")
    _refuses(folders.pairs(tmp_path / "d", np.zeros((9, 9), np.uint8)), "masks/0.png: is 9x9, but its picture")
    root = folders.pairs(tmp_path / "e")
    (root / "classes.txt").unlink()
    _refuses(root, "classes.txt: there is no file with the names of the classes")
    root = folders.pairs(tmp_path / "f")
    (root / "masks" / "3.png").unlink()
    _refuses(root, "images/3.jpg: has no mask of the same name")


def test_masks_of_nothing_but_ignored_pixels_are_refused(tmp_path: Path) -> None:
    root = folders.pairs(tmp_path)
    for i in range(6):
        Image.new("L", (40, 30), 255).save(root / "masks" / f"{i}.png")
    report = data.check(root)
    assert ".: every pixel of the masks is 255, to be ignored" in _found(report)
    with pytest.raises(DataError, match=r"every pixel of the masks is 255.*convscope data check"):
        data.load(str(root), shape=SHAPE, task="segment")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("0.png,cat,1,2,x,9", "labels.csv:2: x1, y1, x2, y2 are not four numbers"),
        ("9.png,cat,1,2,8,9", "labels.csv:2: there is no picture '9.png'"),
        ("../a.png,cat,1,2,8,9", "labels.csv:2: the picture '../a.png' lies outside the folder"),
        ("0.png", "labels.csv:2: has 1 columns"),
        ("0.png,,1,2,8,9", "labels.csv:2: has no label"),
        ("0.png,cat,8,2,1,9", "labels.csv:2: box (8, 2, 1, 9) ends before it begins"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_line(tmp_path: Path, row: str, said: str) -> None:
    rest = "".join(f"{i}.png,cat,1,2,8,9\n" for i in range(1, 6))
    _refuses(folders.rows(tmp_path, f"file,label,x1,y1,x2,y2\n{row}\n{rest}"), said)


# The report


def test_findings_of_a_kind_are_counted_beyond_fifty(tmp_path: Path) -> None:
    root = folders.yolo(tmp_path, "0 0.5 0.5\n" * (SHOWN + 7))
    report = data.check(root)
    assert sum("columns" in f.what for f in report.findings) == SHOWN
    assert "7 more findings of the same kinds" in str(report.table())
    found = Findings(tmp_path, strict=True)
    found.note("a", "b", "c", "d")
    with pytest.raises(DataError, match=r"^b: c; d \(`convscope data check .*` lists all that is wrong\)$"):
        found.add("a", "b", "c", "d")
