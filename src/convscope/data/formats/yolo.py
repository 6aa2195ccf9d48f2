"""YOLO: a text file a picture, a line an object: class x y width height, or class and an outline, in parts of the size.

Source: https://docs.ultralytics.com/datasets/detect/ and /segment/
"""

import posixpath
from collections.abc import Sequence
from typing import Any

import numpy as np

from convscope.data.entries import Box, Entry, Layout, in_parts
from convscope.data.findings import Findings
from convscope.data.formats.names import check_names, listed, whole_number
from convscope.data.outlines import polygon_mask
from convscope.data.tree import Tree, joined
from convscope.errors import DataError, first_line

SETTINGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
MAX_YAML = 2**20


def is_yolo(tree: Tree) -> bool:
    """Whether there is a data.yaml, or a list of classes and a text file beside or parallel to a picture."""
    if any(f in tree.files for f in SETTINGS):
        return True
    return any(_label_file(tree, p) for p in tree.pictures[:200])


def _label_file(tree: Tree, picture: str) -> str | None:
    """The text file of a picture: in `labels` in place of `images`, or beside it."""
    stem = posixpath.splitext(picture)[0]
    folders = stem.split("/")
    places = [stem + ".txt"]
    for at in range(len(folders) - 2, -1, -1):
        if folders[at] == "images":
            places.insert(0, "/".join([*folders[:at], "labels", *folders[at + 1 :]]) + ".txt")
            break
    return next((p for p in places if p in tree.files), None)


def read_yolo(tree: Tree, task: str, found: Findings) -> Layout:
    """An entry for every picture; one without a text file, or with an empty one, is background."""
    settings = next((f for f in SETTINGS if f in tree.files), None)
    document = _settings(tree, settings, found) if settings else {}
    names = _names(document, settings, found) if settings else listed(tree, found)
    if not names:
        found.add("class names", settings or "data.yaml", "there are no class names",
                  "write them into data.yaml as names: [cat, dog]")  # fmt: skip
    first = 1 if task == "segment" else 0
    reader = _Lines(len(names), task, found)
    entries, used, bare = [], set(), 0
    for picture in tree.pictures:
        file = _label_file(tree, picture)
        used.add(file)
        bare += file is None
        try:
            entries.append(reader.entry(picture, file, tree.text(file) if file else ""))
        except DataError as error:
            found.refuse(error)
    if bare:
        found.note("background", "labels", f"{bare:,} pictures have no text file", "nothing to do: they are background")
    for lone in sorted(f for f in tree.named(".txt") if "labels" in f.split("/")[:-1] and f not in used):
        found.note("no picture", lone, "has no picture", "add the picture, or remove the file")
    prefixes = _prefixes(document, tree, settings or "", found)
    parts = in_parts(entries, told=lambda e: _told(e.file, prefixes))
    return Layout("YOLO", task, ("background",) * first + names, parts)


class _Lines:
    """Lines of label files."""

    def __init__(self, num_classes: int, task: str, found: Findings) -> None:
        self.num_classes, self.task, self.found = num_classes, task, found

    def entry(self, picture: str, file: str | None, text: str) -> Entry:
        boxes, labels, lines, outlines = [], [], [], []
        for number, line in enumerate(text.splitlines(), 1):
            values = line.split()
            read = self._line(values, f"{file}:{number}") if values else None
            if read is not None:
                label, points = read
                boxes.append(_around(points))
                outlines.append(points)
                labels.append(label + (self.task == "segment"))
                lines.append(f"{file}:{number}")
        where = file or picture
        if self.task != "segment":
            return Entry(picture, where, tuple(boxes), tuple(labels), tuple(lines), relative=True)
        drawn = list(zip(labels, outlines, strict=True))
        return Entry(picture, where, labels=tuple(labels), mask=_Drawing(drawn, where))

    def _line(self, values: Sequence[str], where: str) -> tuple[int, list[float]] | None:
        """The class, and the points (x1 y1 x2 y2 ...) of the box's corners or of the outline."""
        if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
            self.found.add("columns", where, f"has {len(values)} columns",
                           "write class x y width height, or class and an outline of three points or more")  # fmt: skip
            return None
        label, numbers = whole_number(values[0]), _floats(values[1:])
        if label is None or not 0 <= label < self.num_classes:
            self.found.add("class", where, f"class {values[0]!r:.40} is none of the {self.num_classes} "
                           f"(0 to {self.num_classes - 1})", "correct it, or add the class to data.yaml")  # fmt: skip
            return None
        wrong = [v for v, n in zip(values[1:], numbers, strict=True) if not 0 <= n <= 1]
        if wrong:
            self.found.add("range", where, f"{wrong[0]!r:.40} is not within 0 to 1",
                           "write parts of the picture's width and height, not pixels")  # fmt: skip
            return None
        if len(values) > 5:
            return label, numbers
        if self.task == "segment":
            self.found.add("no outline", where, "is a box, but to segment outlines are needed",
                           "draw the outline, or train detect")  # fmt: skip
            return None
        x, y, width, height = numbers
        return label, [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


class _Drawing:
    """Outlines as a mask, large ones first."""

    def __init__(self, outlines: Sequence[tuple[int, list[float]]], where: str) -> None:
        self.outlines, self.where = outlines, where

    def __call__(self, height: int, width: int) -> np.ndarray:
        drawn, scale = np.zeros((height, width), np.uint8), (width, height)
        masks = []
        for label, points in self.outlines:
            pixels = [v * scale[i % 2] for i, v in enumerate(points)]
            masks.append((polygon_mask([pixels], height=height, width=width), label))
        for mask, label in sorted(masks, key=lambda m: -int(m[0].sum())):
            drawn[mask] = label
        return drawn


def _around(points: Sequence[float]) -> Box:
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def _floats(values: Sequence[str]) -> list[float]:
    try:
        return [float(v) for v in values]
    except ValueError:
        return [float("nan")] * len(values)


def _settings(tree: Tree, file: str, found: Findings) -> dict[Any, Any]:
    import yaml
    from yaml.composer import ComposerError

    class Plain(yaml.SafeLoader):
        """Without aliases: a few lines of them stand for more than any memory holds."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ComposerError(None, None, "an alias, which is not read", self.peek_event().start_mark)
            return super().compose_node(parent, index)

    try:
        content = tree.read(file)
        document = Plain(content).get_single_data() if len(content) <= MAX_YAML else None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        reason = getattr(error, "problem", None) or first_line(error)
        found.add("yaml", where, f"is no plain YAML ({reason})", "write names: [cat, dog]")
        return {}
    return document if isinstance(document, dict) else {}


def _names(document: dict[Any, Any], file: str, found: Findings) -> tuple[str, ...]:
    names = document.get("names")
    if isinstance(names, dict):
        if not all(isinstance(k, int) for k in names) or sorted(names) != list(range(len(names))):
            found.add("class names", file, "names have gaps or are not numbered from 0", "number them 0, 1, 2, ...")
            return ()
        names = [names[at] for at in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(n, str | int) for n in names):
        return ()
    told = tuple(str(n) for n in names)
    check_names(told, file, found)
    if document.get("nc", len(told)) != len(told):
        found.add("class names", file, f"says nc: {document['nc']!r:.40}, but names {len(told)} classes", "correct one")
    return told


def _prefixes(document: dict[Any, Any], tree: Tree, file: str, found: Findings) -> dict[str, str]:
    """Folder -> part, as data.yaml says; folders that are not there are left to their names."""
    told: dict[str, str] = {}
    for part in ("train", "val", "test"):
        value = document.get(part)
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, str) and path.endswith(".txt"):
                found.add("list", file, f"{part} is a list of files, {path!r:.60}", "name a folder of pictures")
            elif isinstance(path, str):
                place = joined("", path) or joined("", path.removeprefix("../"))  # as Roboflow writes it
                if place and any(p.startswith(place + "/") for p in tree.pictures):
                    told[place + "/"] = part
    return told


def _told(file: str, prefixes: dict[str, str]) -> str | None:
    return next((part for prefix, part in prefixes.items() if file.startswith(prefix)), None)
