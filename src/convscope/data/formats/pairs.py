"""Mask PNGs beside pictures: the same names in `images` and `masks`, with a palette, with indices, or in colours.

`classes.txt` names the classes, one a line from 0; colours stand behind the name (`road 128 64 128`), as in CamVid's
`class_dict.csv` (`name,r,g,b`).
"""

import posixpath

from convscope.data.entries import Entry, Layout, in_parts
from convscope.data.findings import Findings
from convscope.data.formats.names import LISTS, check_names
from convscope.data.tree import Tree
from convscope.errors import DataError

MASKS = ("masks", "mask", "SegmentationClass", "labels", "annotations", "gt")
PICTURES = ("images", "image", "JPEGImages", "img")
COLOURED = ("class_dict.csv", "classes.csv", "labelmap.txt", *LISTS)
SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")

Colour = tuple[int, int, int]


def is_pairs(tree: Tree) -> bool:
    """Whether there is a folder of masks parallel to one of pictures."""
    return bool(_pairs(tree))


def _pairs(tree: Tree) -> dict[str, str]:
    """Mask -> picture, by the names of folders and files."""
    stems: dict[tuple[str, str], str] = {}
    for picture in tree.pictures:
        if (kind := _kind(picture, PICTURES)) is not None:
            stems[kind] = picture
    masks = ((m, _kind(m, MASKS)) for m in tree.pictures if m.lower().endswith(SUFFIXES))
    return {mask: stems[kind] for mask, kind in masks if kind in stems}


def _kind(file: str, names: tuple[str, ...]) -> tuple[str, str] | None:
    """(folders but the telling one, stem) of a file in a folder with one of the names."""
    folders, stem = file.split("/")[:-1], posixpath.splitext(posixpath.basename(file))[0]
    at = next((i for i, f in enumerate(folders) if f in names), None)
    if at is None:
        return None
    stem = stem.removesuffix("_mask") if names is MASKS else stem
    return "/".join(folders[:at] + folders[at + 1 :]), stem


def read_pairs(tree: Tree, task: str, found: Findings) -> Layout:
    """The entries of all pictures that have a mask."""
    classes, colours = _classes(tree, found)
    pairs = _pairs(tree)
    with_mask, masks = set(pairs.values()), set(pairs)
    for picture in tree.pictures:
        if _kind(picture, PICTURES) is not None and picture not in with_mask:
            found.add("no mask", picture, "has no mask of the same name", "draw one, or remove the picture")
        elif _kind(picture, MASKS) is not None and picture not in masks:
            found.note("no picture", picture, "is a mask without a picture", "add the picture, or remove it")
    entries = [Entry(picture, mask, mask_file=mask) for mask, picture in pairs.items()]
    sets = _image_sets(tree)
    parts = in_parts(entries, told=lambda e: sets.get(posixpath.splitext(posixpath.basename(e.file))[0]))
    return Layout("pictures and masks", task, classes, parts, colours)


def _classes(tree: Tree, found: Findings) -> tuple[tuple[str, ...], dict[Colour, int]]:
    file = next((f for f in COLOURED if f in tree.files), None)
    if file is None:
        found.add("class names", "classes.txt", "there is no file with the names of the classes",
                  "write one, a name a line, value 0 first; add r g b where masks are in colours")  # fmt: skip
        return (), {}
    names: list[str] = []
    colours: dict[Colour, int] = {}
    try:
        lines = tree.text(file).splitlines()
    except DataError as error:
        found.refuse(error)
        return (), {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").replace(":", " ").split()
        if not words or words[1:4] == ["r", "g", "b"]:
            continue
        colour = _colour(words[-3:]) if len(words) >= 4 else None
        names.append(" ".join(words[: -3 if colour else None]))
        if colour is not None and colours.setdefault(colour, len(names) - 1) != len(names) - 1:
            found.add("class names", f"{file}:{number}", "has the colour of a class before it", "give it its own")
    check_names(names, file, found)
    return tuple(names), colours


def _colour(words: list[str]) -> Colour | None:
    if not all(w.isascii() and w.isdecimal() and len(w) <= 3 and int(w) <= 255 for w in words):
        return None
    red, green, blue = map(int, words)
    return red, green, blue


def _image_sets(tree: Tree) -> dict[str, str]:
    told: dict[str, str] = {}
    for part in ("test", "val", "train"):
        for file in tree.named(f"imagesets/segmentation/{part}.txt"):
            told |= {line.strip(): part for line in tree.text(file).splitlines() if line.strip()}
    return told
