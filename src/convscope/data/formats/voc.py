"""Pascal VOC: an XML file a picture; corners count from 1, and the last pixel belongs to the box.

Source: Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", development kit.
"""

import math
import posixpath
from dataclasses import replace

from convscope.data.entries import Box, Entry, Layout, in_parts, relabelled
from convscope.data.findings import Findings
from convscope.data.formats.names import listed, whole_number
from convscope.data.formats.xml import Node, read_xml
from convscope.data.tree import Tree, joined
from convscope.errors import DataError


def is_voc(tree: Tree) -> bool:
    """Whether there is an XML file that annotates a picture."""
    return any("<annotation" in _head(tree, f) for f in tree.named(".xml")[:20])


def _head(tree: Tree, name: str) -> str:
    try:
        with tree.path(name).open("rb") as file:
            return file.read(400).decode("utf-8", "replace")
    except OSError:
        return ""


def read_voc(tree: Tree, task: str, found: Findings) -> Layout:
    """The entries of all XML files; classes by `classes.txt`, or all names that occur, sorted."""
    names: dict[str, int] = {}
    entries: list[Entry] = []
    for file in tree.named(".xml"):
        try:
            top = read_xml(tree.read(file), source=file)
            entry = _entry(tree, file, top, names=names, found=found)
        except DataError as error:
            found.refuse(error)
            continue
        entries += [entry] if entry else []
    lone = set(tree.pictures) - {e.file for e in entries}
    if lone:
        found.note("no annotation", min(lone), f"{len(lone):,} pictures have no XML file",
                   "they are left out; write a file without objects if nothing is in them")  # fmt: skip
    classes = listed(tree, found) or tuple(sorted(names))
    place = {name: at for at, name in enumerate(classes)}
    new = {old: place[name] for name, old in names.items() if name in place}
    for name in sorted(names.keys() - place.keys()):
        found.add("label", "classes.txt", f"lacks the class {name!r} of an XML file", "add a line with it")
    whole = [relabelled(e, new) for e in entries if all(label in new for label in e.labels)]
    sets = _image_sets(tree)
    parts = in_parts(whole, told=lambda e: sets.get(posixpath.splitext(posixpath.basename(e.file))[0]))
    return Layout("Pascal VOC", task, classes, parts)


def _entry(tree: Tree, file: str, top: Node, *, names: dict[str, int], found: Findings) -> Entry | None:
    if top.name != "annotation":
        return None  # other XML
    picture = _picture(tree, file, top.word("filename"), found)
    if picture is None:
        return None
    width, height = (whole_number(top.word("size", side)) for side in ("width", "height"))
    entry = Entry(picture, file, size=(width, height) if width and height else None)
    for item in top.all("object"):
        where, name = f"{file}:{item.line}", item.word("name")
        box = _box(item)
        if not name or box is None:
            found.add("object", where, "an object has no name, or no bndbox of four numbers",
                      "write name and xmin, ymin, xmax, ymax")  # fmt: skip
            continue
        label = names.setdefault(name, len(names))
        entry = replace(entry, boxes=(*entry.boxes, box), labels=(*entry.labels, label), lines=(*entry.lines, where))
    return entry


def _box(item: Node) -> Box | None:
    try:
        x1, y1, x2, y2 = (float(item.word("bndbox", key)) for key in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        return None
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 < x1 or y2 < y1:
        return x1, y1, x2, y2  # as it is, for the check of boxes to name
    return x1 - 1, y1 - 1, x2, y2


def _picture(tree: Tree, file: str, name: str, found: Findings) -> str | None:
    here, stem = posixpath.dirname(file), posixpath.splitext(file)[0]
    above = posixpath.dirname(here)
    folders = [here, posixpath.join(above, "JPEGImages"), posixpath.join(above, "images")]
    folders += [here.replace("Annotations", "JPEGImages", 1), here.replace("annotations", "images", 1)]
    places = [joined(folder, name) for folder in folders] if name else []
    for place in places:
        if place in tree.files:
            return place
    beside = [p for p in (stem + end for end in (".jpg", ".jpeg", ".png")) if p in tree.files]
    if beside:
        return beside[0]
    if places and places[0] is None:
        found.add("outside", file, f"the picture {name!r} lies outside the folder", "copy it into the folder")
    elif any(p in tree.links for p in places):
        found.add("link", file, f"the picture {name!r} is a link", "put the file itself in its place")
    else:
        found.add("missing picture", file, f"there is no picture {name!r}", "add it, or remove the XML file")
    return None


def _image_sets(tree: Tree) -> dict[str, str]:
    """Stem -> part, from ImageSets/Main/{train,val,test}.txt."""
    told: dict[str, str] = {}
    for part in ("test", "val", "train"):
        for file in tree.named(f"imagesets/main/{part}.txt"):
            told |= {line.split()[0]: part for line in tree.text(file).splitlines() if line.split()}
    return told
