"""CSV: a row a picture (file, label), or a row a box (file, label, x1, y1, x2, y2); a header says which is which."""

import csv
import io
import posixpath
from collections.abc import Mapping, Sequence

from convscope.data.entries import Box, Entry, Layout, in_parts, part_of, relabelled
from convscope.data.findings import Findings
from convscope.data.formats.names import listed
from convscope.data.tree import Tree, joined
from convscope.errors import DataError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "file": ("file", "filename", "file_name", "image", "path", "image_path"),
    "label": ("label", "class", "class_name", "category"),
    "x1": ("x1", "xmin"),
    "y1": ("y1", "ymin"),
    "x2": ("x2", "xmax"),
    "y2": ("y2", "ymax"),
    "part": ("part", "split", "subset"),
}
CORNERS = ("x1", "y1", "x2", "y2")

Header = dict[str, int]


def is_rows(tree: Tree) -> bool:
    """Whether a CSV file at the top names files and labels in its header."""
    return bool(_tables(tree))


def has_boxes(tree: Tree) -> bool:
    """Whether it names corners too."""
    return any(all(c in header for c in CORNERS) for header in _tables(tree).values())


def _tables(tree: Tree) -> dict[str, Header]:
    found = {}
    for file in tree.named(".csv"):
        if "/" not in file:
            try:
                with tree.path(file).open("rb") as opened:
                    line = opened.readline(4096).decode("utf-8-sig", "replace")
            except OSError:
                continue
            header = _header(line.strip().split(_delimiter(line)))
            if {"file", "label"} <= header.keys():
                found[file] = header
    return found


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _header(names: Sequence[str]) -> Header:
    plain = [n.strip().strip('"').lower() for n in names]
    return {key: plain.index(w) for key, known in COLUMNS.items() for w in known[::-1] if w in plain}


def read_rows(tree: Tree, task: str, found: Findings) -> Layout:
    """The entries of all CSV files at the top; classes by `classes.txt`, or all labels, sorted."""
    names: dict[str, int] = {}
    entries: dict[str, Entry] = {}
    told: dict[str, str] = {}
    for file, header in _tables(tree).items():
        reader = _Rows(tree, file, header, task, found)
        try:
            for row in reader.rows():
                _take(row, entries, names, told)
        except DataError as error:
            found.refuse(error)
    if task == "classify":
        _one_label_each(entries, names, found)
    classes = listed(tree, found) or tuple(sorted(names))
    place = {name: at for at, name in enumerate(classes)}
    for name in sorted(names.keys() - place.keys()):
        found.add("label", "classes.txt", f"lacks the class {name!r:.60} of a CSV file", "add a line with it")
    new = {old: place[name] for name, old in names.items() if name in place}
    whole = [relabelled(e, new) for e in entries.values() if all(label in new for label in e.labels)]
    return Layout("CSV", task, classes, in_parts(whole, told=lambda e: told.get(e.file)))


Row = tuple[str, str, str, Box | None, str | None]  # picture, where, label, box, part


def _take(row: Row, entries: dict[str, Entry], names: dict[str, int], told: dict[str, str]) -> None:
    picture, where, label, box, part = row
    old = entries.get(picture, Entry(picture, where))
    if part:
        told.setdefault(picture, part)
    if label:
        number = names.setdefault(label, len(names))
        boxes = (*old.boxes, box) if box else old.boxes
        old = Entry(picture, old.where, boxes, (*old.labels, number), (*old.lines, where))
    entries[picture] = old


def _one_label_each(entries: dict[str, Entry], names: Mapping[str, int], found: Findings) -> None:
    for picture, entry in list(entries.items()):
        if len(entry.labels) > 1:
            found.add(
                "two labels", entry.lines[-1], f"the picture {picture!r} has a label already", "keep one row of it"
            )
        if len(entry.labels) != 1:
            del entries[picture]


class _Rows:
    """The rows of one file."""

    def __init__(self, tree: Tree, file: str, header: Header, task: str, found: Findings) -> None:
        self.tree, self.file, self.header, self.task, self.found = tree, file, header, task, found
        self.boxes = task == "detect"

    def rows(self) -> list[Row]:
        """What every row says; those that say it wrongly are noted and left out."""
        if self.boxes and not all(c in self.header for c in CORNERS):
            raise DataError(f"{self.file}:1: has no columns x1, y1, x2, y2; add them, or train classify")
        text = self.tree.text(self.file)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text.split("\n", 1)[0]))
        made: list[Row] = []
        try:
            for at, row in enumerate(reader):
                if at and any(v.strip() for v in row):
                    made += self._row([v.strip() for v in row], f"{self.file}:{reader.line_num}")
        except csv.Error as error:
            raise DataError(f"{self.file}:{reader.line_num}: is no CSV ({error}); write the file anew") from None
        return made

    def _row(self, row: list[str], where: str) -> list[Row]:
        if len(row) <= max(self.header[k] for k in ("file", "label")):
            self.found.add("columns", where, f"has {len(row)} columns", "write as many as the header has")
            return []
        of = {key: row[at] if at < len(row) else "" for key, at in self.header.items()}
        picture = self._picture(of["file"], where)
        if picture is None:
            return []
        part = part_of(of.get("part", "") + "/x") or part_of(self.file)
        if not of["label"]:
            if not self.boxes or any(of[c] for c in CORNERS):
                self.found.add("label", where, "has no label", "write one, or remove the row")
                return []
            return [(picture, where, "", None, part)]
        box = self._box(of, where) if self.boxes else None
        return [] if self.boxes and box is None else [(picture, where, of["label"], box, part)]

    def _box(self, of: Mapping[str, str], where: str) -> Box | None:
        try:
            x1, y1, x2, y2 = (float(of[c]) for c in CORNERS)
        except ValueError:
            self.found.add("box", where, "x1, y1, x2, y2 are not four numbers", "write pixels")
            return None
        return x1, y1, x2, y2

    def _picture(self, name: str, where: str) -> str | None:
        places = [joined("", name), joined("images", name)]
        stem = posixpath.splitext(self.file)[0]
        places += [joined(stem, name)]
        for place in places:
            if place in self.tree.files:
                return place
        if places[0] is None:
            self.found.add(
                "outside", where, f"the picture {name!r:.80} lies outside the folder", "copy it into the folder"
            )
        elif any(p in self.tree.links for p in places):
            self.found.add("link", where, f"the picture {name!r:.80} is a link", "put the file itself in its place")
        else:
            self.found.add("missing picture", where, f"there is no picture {name!r:.80}", "add it, or remove the row")
        return None
