"""COCO JSON: boxes, polygons and run lengths.

Source: https://cocodataset.org/#format-data
"""

import json
import math
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from convscope.data.entries import Box, Entry, Layout, in_parts, part_of
from convscope.data.findings import Findings
from convscope.data.outlines import polygon_mask, run_length_mask
from convscope.data.samples import IGNORE
from convscope.data.tree import Tree, joined
from convscope.errors import DataError

MAX_CLASSES = 254  # a mask's values, less the background and 255


def is_coco(tree: Tree) -> bool:
    """Whether a JSON file at the top, in `annotations`, or beside a part's pictures looks like COCO."""
    return bool(_files(tree))


def _files(tree: Tree) -> list[str]:
    return [f for f in tree.named(".json") if f.count("/") <= 2 and _looks(tree, f)]


def _looks(tree: Tree, name: str) -> bool:
    """By its first and last characters alone, since the file may be large."""
    try:
        with tree.path(name).open("rb") as file:
            head = file.read(4096)
            file.seek(-min(4096, file.seek(0, 2)), 2)
            tail = file.read()
    except OSError:
        return False
    keys = (b'"images"', b'"annotations"', b'"categories"', b'"info"')
    told = posixpath.basename(name).startswith(("instances", "_annotations.coco"))
    return told or (head.lstrip(b"\xef\xbb\xbf \n\r\t")[:1] == b"{" and any(k in head or k in tail for k in keys))


def read_coco(tree: Tree, task: str, found: Findings) -> Layout:
    """The entries of all COCO files of a folder; classes go by their categories' ids."""
    documents = {}
    for name in _files(tree):
        try:
            documents[name] = _document(tree, name)
        except DataError as error:
            found.refuse(error)
    names: dict[int, str] = {}
    for name, document in documents.items():
        _categories(document, name, names, found)
    first = 1 if task == "segment" else 0
    numbers = {old: new for new, old in enumerate(sorted(names), first)}
    if sorted(names) != list(range(first, first + len(names))):
        told = ", ".join(f"{old} -> {new}" for old, new in list(numbers.items())[:8]) + ", ..." * (len(numbers) > 8)
        found.note("category ids", next(iter(documents)), f"category ids have gaps or another start: {told}",
                   "nothing to do: they are numbered anew by rising id")  # fmt: skip
    if task == "segment" and len(names) > MAX_CLASSES:
        found.add("category ids", next(iter(documents)), f"has {len(names)} categories",
                  f"masks can tell {MAX_CLASSES} apart; leave some out")  # fmt: skip
        numbers = {}
    entries: dict[str, list[Entry]] = {}
    for name, document in documents.items():
        reader = _Reader(tree, name, task, numbers, found)
        entries.setdefault(part_of(name) or "", []).extend(reader.entries(document))
    parts = in_parts([e for part in entries.values() for e in part], told=_told(entries))
    classes = (("background",) if first else ()) + tuple(names[i] for i in sorted(names))
    return Layout("COCO JSON", task, classes, parts, categories={names[old]: old for old in numbers})


def _told(entries: dict[str, list[Entry]]) -> Any:
    parts = {id(e): part for part, group in entries.items() for e in group if part}
    return lambda entry: parts.get(id(entry))


def _document(tree: Tree, name: str) -> dict[str, Any]:
    try:
        document = json.loads(tree.text(name))
    except json.JSONDecodeError as error:
        raise DataError(f"{name}:{error.lineno}: is no JSON ({error.msg}); write the file anew") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: is no JSON ({error}); write the file anew") from None
    lists = {key: document.get(key) for key in ("images", "annotations", "categories")} if _table(document) else {}
    wrong = [key for key in ("images", "annotations", "categories") if not isinstance(lists.get(key), list)]
    if wrong:
        raise DataError(f"{name}: lacks the list {wrong[0]!r}; COCO has images, annotations and categories")
    return lists


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _categories(document: dict[str, Any], file: str, names: dict[int, str], found: Findings) -> None:
    seen: set[int] = set()
    for at, category in enumerate(document["categories"]):
        number, name = _whole(_of(category, "id")), _of(category, "name")
        where = f"{file}: categories[{at}]"
        if number is None or not isinstance(name, str) or not name:
            found.add("categories", where, "has no whole number as id, or no name", "write id and name")
        elif number in seen:
            found.add("duplicate category", where, f"category id {number} occurs twice", "give each its own id")
        elif names.get(number, name) != name:
            found.add("categories", where, f"category {number} is {name!r} here and {names[number]!r} in another file",
                      "use the same categories in all files")  # fmt: skip
        else:
            seen.add(number)
            names[number] = name


class _Reader:
    """The entries of one document."""

    def __init__(self, tree: Tree, file: str, task: str, numbers: dict[int, int], found: Findings) -> None:
        self.tree, self.file, self.task, self.numbers, self.found = tree, file, task, numbers, found
        self.folders = _folders(tree, file)

    def entries(self, document: dict[str, Any]) -> list[Entry]:
        """One entry a picture, those without annotations as well."""
        images = self._images(document["images"])
        grouped: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        ids: set[int] = set()
        for at, annotation in enumerate(document["annotations"]):
            if (image := self._image_of(annotation, at, images, ids)) is not None:
                grouped.setdefault(image, []).append((at, annotation))
        made = [self._entry(entry, grouped.get(number, ())) for number, entry in images.items()]
        if bare := sum(number not in grouped for number in images):
            self.found.note("empty annotations", self.file, f"{bare:,} pictures have no annotation",
                            "nothing to do: they count as background")  # fmt: skip
        return made

    def _images(self, images: Sequence[Any]) -> dict[int, Entry]:
        made: dict[int, Entry] = {}
        for at, image in enumerate(images):
            number, where = _whole(_of(image, "id")), f"{self.file}: images[{at}]"
            width, height = _whole(_of(image, "width")), _whole(_of(image, "height"))
            if number is None or not isinstance(_of(image, "file_name"), str):
                self.found.add("images", where, "has no whole number as id, or no file_name", "write id and file_name")
            elif number in made:
                self.found.add("duplicate id", where, f"image id {number} occurs twice", "give each picture its own id")
            elif (file := self._picture(image["file_name"], where)) is not None:
                stated = (width, height) if width and height and width > 0 and height > 0 else None
                made[number] = Entry(file, where, size=stated)
        return made

    def _picture(self, name: str, where: str) -> str | None:
        places = [joined(folder, name) for folder in self.folders]
        for place in places:
            if place in self.tree.files:
                return place
        if places[0] is None:
            self.found.add("outside", where, f"the picture {name!r} lies outside the folder", "copy it into the folder")
        elif any(p in self.tree.links for p in places):
            self.found.add("link", where, f"the picture {name!r} is a link", "put the file itself in its place")
        else:
            self.found.add("missing picture", where, f"there is no picture {name!r}", "add it, or remove the entry")
        return None

    def _image_of(self, annotation: Any, at: int, images: dict[int, Entry], ids: set[int]) -> int | None:
        where, image = f"{self.file}: annotations[{at}]", _whole(_of(annotation, "image_id"))
        own = _whole(_of(annotation, "id"))
        if own is not None and own in ids:
            self.found.note("duplicate id", where, f"annotation id {own} occurs twice", "give each its own id")
        if own is not None:
            ids.add(own)
        if image is None:
            self.found.add("image_id", where, "has no image_id", "write the id of its picture")
        elif image not in images:
            self.found.add("image_id", where, f"image_id {image} is no picture's", "remove it, or add the picture")
            return None
        elif _whole(_of(annotation, "category_id")) not in self.numbers:
            shown = _of(annotation, "category_id")
            self.found.add("category_id", where, f"category_id {shown!r:.40} is no category", "add the category")
            return None
        return image

    def _entry(self, entry: Entry, annotations: Iterable[tuple[int, dict[str, Any]]]) -> Entry:
        boxes, labels, lines, areas = [], [], [], []
        for at, annotation in annotations:
            where, crowd = f"{self.file}: annotations[{at}]", annotation.get("iscrowd") in (1, True)
            label = self.numbers[annotation["category_id"]]
            if crowd:
                done = "its pixels count neither way" if self.task == "segment" else "it is left out"
                self.found.note("iscrowd", where, "is a crowd, not one object", f"nothing to do: {done}")
            if self.task == "segment":
                areas.append((where, IGNORE if crowd else label, annotation.get("segmentation")))
                labels += [] if crowd else [label]
            elif not crowd:
                box = _box(annotation.get("bbox"))
                if box is None:
                    self.found.add("bbox", where, "has no bbox of four numbers", "write [x, y, width, height]")
                    continue
                boxes.append(box)
                labels.append(label)
                lines.append(where)
        drawing = _Drawing(tuple(areas)) if self.task == "segment" else None
        return replace(entry, boxes=tuple(boxes), labels=tuple(labels), lines=tuple(lines), mask=drawing)


class _Drawing:
    """The classes of pixels, drawn when they are asked for: large areas first, so that small ones are on top."""

    def __init__(self, areas: Sequence[tuple[str, int, Any]]) -> None:
        self.areas = areas

    def __call__(self, height: int, width: int) -> np.ndarray:
        drawn = np.zeros((height, width), np.uint8)
        made = []
        for where, label, outline in self.areas:
            try:
                made.append((_area(outline, height=height, width=width), label))
            except ValueError as error:
                raise DataError(f"{where}: {error}; draw it anew") from None
        for mask, label in sorted(made, key=lambda m: -int(m[0].sum())):
            drawn[mask] = label
        return drawn


def _area(outline: Any, *, height: int, width: int) -> np.ndarray:
    if isinstance(outline, dict):
        return run_length_mask(outline, height=height, width=width)
    if not isinstance(outline, list) or not outline or not all(isinstance(p, list) for p in outline):
        raise ValueError("has no segmentation: neither polygons nor run lengths")
    if not all(_number(v) is not None for p in outline for v in p):
        raise ValueError("an outline holds what is no number")
    return polygon_mask(outline, height=height, width=width)


def _folders(tree: Tree, file: str) -> list[str]:
    """Where the pictures of an annotation file may be, the nearest first."""
    here, part = posixpath.dirname(file), part_of(file)
    tops = [here, "", "images", *(f for f in tree.children() if part_of(f + "/x") == part)]
    tops += [f"images/{f}" for f in tree.children("images") if part_of(f + "/x") == part]
    return list(dict.fromkeys([*tops, *(f"{t}/images" for t in tops if t)]))


def _box(value: Any) -> Box | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [_number(v) for v in value]
    x, y, width, height = (math.nan if v is None else v for v in numbers)
    return None if None in numbers else (x, y, x + width, y + height)


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
