"""WebDataset shards: tar files in which a sample's files stand together, `KEY.jpg` beside `KEY.cls` or `KEY.seg.png`.

A shard's headers are read first; its pictures then in the order in which they lie, so that a disk reads on.
Source: Aizman et al. 2019, High performance I/O for large scale deep learning (arXiv:2001.01858).
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from convscope.data.entries import Entry, Layout, in_parts
from convscope.data.findings import Findings
from convscope.data.folder import SUFFIXES
from convscope.data.formats.names import listed, whole_number
from convscope.data.tree import Tree
from convscope.errors import DataError

CLASS, MASK = "cls", ("seg.png", "mask.png")
LONGEST = 1000  # bytes of a class's name

Files = dict[str, str]  # ending -> member


def is_shards(tree: Tree) -> bool:
    """Whether there is a tar file."""
    return bool(tree.named(".tar"))


def read_shards(tree: Tree, task: str, found: Findings) -> Layout:
    """The entries of all shards; the part is told by the shard's name, the classes by `classes.txt` or themselves."""
    samples = [(key, files) for shard in tree.named(".tar") for key, files in _samples(tree, shard, found).items()]
    if task == "segment":
        masks = ((f, next((f[m] for m in MASK if m in f), ""), key) for key, f in samples)
        whole = [Entry(_picture(f), mask, mask_file=mask) for f, mask, key in masks if _has(f, mask, key, found)]
        return Layout("WebDataset shards", task, listed(tree, found), in_parts(whole))
    told = {key: (f, _class(tree, f.get(CLASS, ""))) for key, f in samples}
    whole = {key: (f, name) for key, (f, name) in told.items() if _has(f, name, key, found)}
    names = {name for _, name in whole.values()}
    numbers = {name: whole_number(name) for name in names}
    by_number = all(n is not None and n >= 0 for n in numbers.values())
    classes = listed(tree, found) or tuple(sorted(names, key=lambda n: (numbers[n] if by_number else 0, n)))
    place = {name: at for at, name in enumerate(classes)}
    if by_number and not names <= place.keys():
        place = {name: number for name, number in numbers.items() if number is not None and number < len(classes)}
    for name in sorted(names - place.keys()):
        found.add("label", "classes.txt", f"lacks the class {name!r:.60} of a shard", "add a line with it")
    entries = [Entry(_picture(f), f[CLASS], labels=(place[name],)) for f, name in whole.values() if name in place]
    return Layout("WebDataset shards", task, classes, in_parts(entries))


def shard_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures in one shard, in the order in which they lie, masks left out: (name, what the file holds).

    Raises: DataError if it is no tar file, or cut short.
    """
    tree = Tree(path.parent, frozenset({path.name}))
    with path.open("rb") as file:
        for name, offset, size in _members(tree, path.name):
            stem, _, ending = name.rpartition("/")[2].partition(".")
            if stem and f".{ending.lower()}" in SUFFIXES:
                file.seek(offset)
                yield name, file.read(size)


def _samples(tree: Tree, shard: str, found: Findings) -> dict[str, Files]:
    """The files of each key, those of a sample by what follows the first dot of its name."""
    samples: dict[str, Files] = {}
    try:
        for name, offset, size in _members(tree, shard):
            folder, _, last = name.rpartition("/")
            stem, dot, ending = last.partition(".")
            if dot and stem:
                tree.members[f"{shard}/{name}"] = (shard, offset, size)
                samples.setdefault(f"{shard}/{folder}/{stem}", {})[ending.lower()] = f"{shard}/{name}"
    except DataError as error:
        found.refuse(error)
    return samples


def _members(tree: Tree, shard: str) -> Iterator[tuple[str, int, int]]:
    path = tree.path(shard)
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as opened:
            for member in opened:
                if member.isreg():
                    if member.offset_data + member.size > size:
                        raise DataError(f"{shard}: is cut short in {member.name!r:.80}; get a whole copy")
                    yield member.name, member.offset_data, member.size
            if 0 < size - opened.offset < tarfile.BLOCKSIZE:  # which tarfile takes for the end
                raise DataError(f"{shard}: is cut short in its last header; get a whole copy")
    except (tarfile.TarError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{shard}: is no tar file, or cut short ({error}); get a whole copy") from None


def _picture(files: Files) -> str:
    return next((member for ending, member in files.items() if f".{ending}" in SUFFIXES), "")


def _class(tree: Tree, member: str) -> str:
    if not member or tree.members[member][2] > LONGEST:
        return ""
    return tree.read(member).decode("utf-8", "replace").strip()


def _has(files: Files, label: str, key: str, found: Findings) -> bool:
    """Whether a sample has a picture and a label; a finding if it has one without the other."""
    picture = bool(_picture(files))
    if picture and not label:
        found.add("no label", key, "has a picture, but no class (.cls) or mask (.seg.png) to learn", "add it")
    elif label and not picture:
        found.add("no picture", key, "has a label, but no picture", "add it, or leave the label out")
    return picture and bool(label)
