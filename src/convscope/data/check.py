"""`data check`: every file and label of a folder looked at once, and all that is wrong with it said together."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from convscope.data.digits import stratified
from convscope.data.entries import PARTS, Entry, Layout
from convscope.data.findings import Findings, Report
from convscope.data.formats import recognise
from convscope.data.likeness import difference_hash, near_pairs
from convscope.data.loading import check_layout
from convscope.data.opened import Opened, held, open_entry
from convscope.data.samples import IGNORE
from convscope.data.tree import Tree, walk
from convscope.errors import DataError

Work = list[tuple[str, Entry]]


def check(
    root: Path | str,
    *,
    task: str | None = None,
    allow_empty: bool = False,
    watch: Callable[[Work], Iterable[tuple[str, Entry]]] = iter,
) -> Report:
    """What is wrong with a data set, and what a person should know of it.

    `task`: what it is to teach; if None, what its format usually teaches. `allow_empty`: classes without a picture stop
    nothing. `watch` is handed what is to be read, and
    may tell how far it is. Each picture is read once; of it, no more than two hashes are kept.
    Raises: DataError if there is no such folder, or its format is not known.
    """
    root = Path(root)
    allowed = frozenset({"empty class"} if allow_empty else ())
    found, tree = Findings(root, allowed=allowed), walk(root)
    chosen, task = recognise(tree, task)
    layout = chosen.read(tree, task, found)
    _check_tree(tree, found)
    check_layout(layout, found)
    if layout.format == "class folders":
        _check_split(layout, found)
    seen = _Seen(layout)
    work = [(part, e) for part, entries in layout.parts.items() for e in entries]
    with closing(held(tree, [entry for _, entry in work])) as files:
        for (part, entry), file in zip(watch(work), files, strict=True):
            opened = open_entry(entry, file, layout, found)
            if opened is not None:
                seen.take(part, entry, opened, file.content)
    seen.report(found)
    counts = {name: int(n) for name, n in zip(layout.classes, seen.classes, strict=True)}
    ordered = sorted(found.kept, key=lambda f: not f.stops)
    parts = {name: len(layout.parts[name]) for name in PARTS if name in layout.parts}
    left = sum(found.counts.values()) - len(ordered)
    return Report(str(root), layout.format, task, parts, counts, tuple(ordered), left, dict(layout.categories))


def _check_tree(tree: Tree, found: Findings) -> None:
    for link in sorted(tree.links):
        found.note(
            "link", link, "is a link", "nothing to do: links are not followed; copy the files if they are needed"
        )
    if tree.litter:
        found.note("litter", min(tree.litter), f"{len(tree.litter):,} files that a system left behind",
                   "nothing to do: they are passed over")  # fmt: skip


def _check_split(layout: Layout, found: Findings) -> None:
    """Whether every class has enough pictures to give some to the parts that are missing."""
    labels = torch.tensor([e.labels[0] for e in layout.parts.get("train", ())])
    for name, fraction in (("test", 0.2), ("val", 0.1)):
        if name not in layout.parts and len(labels):
            try:
                labels = labels[stratified(labels, fraction=fraction, seed=0)[0]]
            except DataError as error:
                found.refuse(error)
                return


class _Seen:
    """What is kept of the pictures: classes, and hashes by part."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.classes = layout, np.zeros(len(layout.classes), np.int64)
        self.first: dict[bytes, tuple[str, str]] = {}
        self.same: list[tuple[str, str, str, str]] = []
        self.names: dict[str, list[str]] = {}
        self.hashes: dict[str, list[np.ndarray]] = {}
        self.counted = 0

    def take(self, part: str, entry: Entry, opened: Opened, content: bytes) -> None:
        """Note one picture."""
        self._count(opened)
        digest = hashlib.sha256(content).digest()
        other = self.first.setdefault(digest, (part, entry.file))
        if other[1] != entry.file:
            self.same.append((*other, part, entry.file))
        else:
            self.names.setdefault(part, []).append(entry.file)
            self.hashes.setdefault(part, []).append(difference_hash(opened.picture))

    def _count(self, opened: Opened) -> None:
        if opened.mask is not None:
            counts = np.bincount(opened.mask.ravel(), minlength=256)
            self.counted += int(counts.sum() - counts[IGNORE]) if len(self.classes) <= IGNORE else 0
            self.classes += counts[: len(self.classes)]
        else:
            for label, count in Counter(opened.labels).items():
                self.classes[label] += count

    def report(self, found: Findings) -> None:
        """What only all pictures together can tell."""
        for part, file, other_part, other in self.same:
            _alike(found, (part, file), (other_part, other), how="the same picture")
        for one, others in self._compared():
            mine, theirs = (np.stack(self.hashes[p]) for p in (one, others))
            for i, j in near_pairs(mine, theirs):
                if one != others or i < j:
                    pair = (one, self.names[one][i]), (others, self.names[others][j])
                    _alike(found, *pair, how="nearly the same picture")
        if self.layout.task == "segment" and self.names and not self.counted:
            found.add("ignored", ".", f"every pixel of the masks is {IGNORE}, to be ignored", "give them classes")

    def _compared(self) -> Sequence[tuple[str, str]]:
        """Parts whose pictures are compared; within one only where it is still to be parted."""
        parts = [p for p in PARTS if p in self.hashes]
        if parts == ["train"]:
            return [("train", "train")]
        return [(a, b) for i, a in enumerate(parts) for b in parts[i + 1 :]]


def _alike(found: Findings, one: tuple[str, str], other: tuple[str, str], *, how: str) -> None:
    where = f"in {one[0]} too" if one[0] != other[0] else "and may be parted from it"
    found.note(f"{how} {one[0] == other[0]}", other[1], f"is {how} as {one[1]}, {where}",
               "remove one: a test on what was learnt tells nothing")  # fmt: skip
