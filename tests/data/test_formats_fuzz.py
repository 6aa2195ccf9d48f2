"""Whatever stands in a file of labels, a folder gives samples, or a sentence of ours."""

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import folders
from convscope import data
from convscope.errors import InputError
from fuzzing import budget

few = budget(40)


def _survives(make: Callable[[Path], Path], *tasks: Any) -> None:
    """The check tells what is wrong, or that nothing is, and training agrees."""
    with tempfile.TemporaryDirectory() as name:
        root = make(Path(name))
        for task in tasks:
            clean = False
            with suppress(InputError):
                report = data.check(root, task=task)
                clean = report.clean
                str(report.table())
                report.table().json()
            try:
                data.load(str(root), shape=(3, 8, 8), task=task)
            except InputError:
                assert not clean
            else:
                assert clean


def _with(make: Callable[..., Path], file: str, content: bytes) -> Callable[[Path], Path]:
    def made(root: Path) -> Path:
        make(root, count=4)
        (root / file).write_bytes(content)
        return root

    return made


FILES = [
    (folders.coco, "instances.json", ("detect", "segment")),
    (folders.yolo, "data.yaml", ("detect", "segment")),
    (folders.yolo, "labels/0.txt", ("detect", "segment")),
    (folders.voc, "Annotations/0.xml", ("detect",)),
    (folders.pairs, "classes.txt", ("segment",)),
    (folders.pairs, "masks/0.png", ("segment",)),
]


@pytest.mark.parametrize(("make", "file", "tasks"), FILES, ids=[f for _, f, _ in FILES])
@budget(8)
@given(st.binary(max_size=60))
def test_bytes(make: Callable[..., Path], file: str, tasks: tuple[Any, ...], content: bytes) -> None:
    _survives(_with(make, file, content), *tasks)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -1, 1e308]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "size", "counts"]), inner),
    max_leaves=6,
)
PLACES = [
    (part, key)
    for part, keys in {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd"),
        "categories": ("id", "name"),
    }.items()
    for key in keys
]


@few
@given(st.sampled_from(PLACES), values, st.booleans())
@example(("annotations", "segmentation"), {"size": [30, 40], "counts": "0" * 70 + "o" * 9}, False)
@example(("annotations", "segmentation"), {"size": [30, 40], "counts": [1200, -1, 1]}, False)
@example(("annotations", "segmentation"), [[1e300, 0, 1, 1, 2, 2]], False)
@example(("annotations", "bbox"), [10**400, 1, 1, 1], False)
@example(("images", "file_name"), "a\0b", False)
def test_values_in_coco(place: tuple[str, str], value: Any, whole: bool) -> None:
    document = folders.coco_document(4)
    if whole:
        document[place[0]][0] = value
    else:
        document[place[0]][0][place[1]] = value
    _survives(lambda root: folders.coco(root, document, count=4), "detect", "segment")


@budget(10)
@given(values)
def test_documents_in_place_of_coco(value: Any) -> None:
    content = json.dumps({"images": value, "annotations": value, "categories": value}).encode()
    _survives(_with(folders.coco, "instances.json", content), "detect")


def test_json_and_yaml_that_are_too_deep() -> None:
    deep = b'{"images":' + b"[" * 100_000
    _survives(_with(folders.coco, "instances.json", deep), "detect")
    _survives(_with(folders.yolo, "data.yaml", b"[" * 20_000), "detect")
    aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(b + 1)}: &{chr(b + 1)} [{','.join([f'*{chr(b)}'] * 9)}]\n" for b in range(97, 105)
    )
    _survives(_with(folders.yolo, "data.yaml", (aliases + "names: *i\n").encode()), "detect")


words = st.sampled_from(
    ["0", "1", "-1", "7", "0.5", "1.5", "nan", "inf", "1e999", "x", "٣", "0.1", "0.9", "", "\t", "²"]
)


@few
@given(st.lists(words, max_size=9))
def test_lines_in_yolo(line: list[str]) -> None:
    _survives(lambda root: folders.yolo(root, " ".join(line) + "\n", count=4), "detect", "segment")


@budget(20)
@given(words, words)
@example("<x/>", "&amp;")
@example("\ufffe", "1")
def test_corners_in_voc(x1: str, x2: str) -> None:
    _survives(lambda root: folders.voc(root, x1=x1, x2=x2, count=4), "detect")


@pytest.mark.parametrize("encoding", ["utf-16", "cp037", "nonsense", "utf-7", "euc-jp"])
def test_encodings_of_xml(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><annotation/>'.encode()
    _survives(_with(folders.voc, "Annotations/0.xml", text), "detect")


@few
@given(st.lists(st.lists(words | st.sampled_from(["0.png", "1.png", '"', "../x", "\0"]), max_size=7), max_size=3))
def test_rows(rows: list[list[str]]) -> None:
    text = "file,label,x1,y1,x2,y2,part\n" + "\n".join(",".join(row) for row in rows)
    _survives(lambda root: folders.rows(root, text, count=4), "detect", "classify")
