"""Entry: a picture's file and its labels, before a pixel is read; Layout: all of a folder's, in parts."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

Box = tuple[float, float, float, float]
PARTS = ("train", "val", "test")
_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture.

    `file`: relative to the root. `where`: the annotation, for messages; `lines`: those of its boxes.
    `boxes`: x1 y1 x2 y2 in pixels, or in parts of width and height if `relative`. `labels`: one each, or the one class
    of the picture. `size`: (width, height) as the annotation states it. `mask`: a function of (height, width) that
    draws uint8 classes, or `mask_file` a picture of them.
    """

    file: str
    where: str
    boxes: tuple[Box, ...] = ()
    labels: tuple[int, ...] = ()
    lines: tuple[str, ...] = ()
    relative: bool = False
    size: tuple[int, int] | None = None
    mask: Callable[[int, int], np.ndarray] | None = None
    mask_file: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """A folder's entries by part. `colours`: (r, g, b) -> class, for masks that are drawn in colours."""

    format: str
    task: str
    classes: tuple[str, ...]
    parts: Mapping[str, Sequence[Entry]]
    colours: Mapping[tuple[int, int, int], int] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)


def part_of(name: str) -> str | None:
    """The part that a file's folders or its own name tell, the outermost first.

    >>> part_of("images/train2017/a.png"), part_of("valid/a.png"), part_of("instances_val2017.json"), part_of("a.png")
    ('train', 'val', 'val', None)
    """
    *folders, last = name.split("/")
    words = [w for f in folders for w in _words(f)]
    if last.endswith((".json", ".csv", ".txt")):
        words += _words(last)
    return next((_WORDS[w] for w in words if w in _WORDS), None)


def _words(name: str) -> list[str]:
    plain = "".join(c if c.isalpha() else " " for c in name.lower())
    return plain.split()


def in_parts(entries: Sequence[Entry], *, told: Callable[[Entry], str | None] | None = None) -> dict[str, list[Entry]]:
    """Entries by the part that their folders tell; all are `train` where none is told to be."""
    parts: dict[str, list[Entry]] = {}
    for entry in entries:
        part = (told(entry) if told else None) or part_of(entry.file) or "train"
        parts.setdefault(part, []).append(entry)
    if "train" not in parts:
        return {"train": list(entries)} if entries else {}
    return {name: parts[name] for name in PARTS if name in parts}


def split(parts: Mapping[str, Sequence[Entry]], *, seed: int) -> dict[str, list[Entry]]:
    """The three parts: a missing test part is a fifth of the training pictures, a missing val part a tenth of the rest.

    Each class gives its share, where a picture goes by the rarest of its classes.

    >>> made = split({"train": [Entry(f"{i}.png", "", labels=(i % 2,)) for i in range(50)]}, seed=0)
    >>> {name: len(entries) for name, entries in made.items()}
    {'train': 36, 'val': 4, 'test': 10}
    """
    made = {name: list(entries) for name, entries in parts.items()}
    for name, fraction in (("test", 0.2), ("val", 0.1)):
        if name not in made:
            made["train"], made[name] = _held_out(made["train"], fraction=fraction, seed=seed)
    return {name: made[name] for name in PARTS}


def _held_out(entries: Sequence[Entry], *, fraction: float, seed: int) -> tuple[list[Entry], list[Entry]]:
    counts = Counter(label for e in entries for label in set(e.labels))
    groups: dict[int, list[int]] = {}
    for at in np.random.Generator(np.random.Philox(key=seed)).permutation(len(entries)).tolist():
        rarest = min(entries[at].labels, key=lambda c: (counts[c], c), default=-1)
        groups.setdefault(rarest, []).append(at)
    held: set[int] = set()
    owed = 0.0
    for _, group in sorted(groups.items()):
        owed += fraction * len(group)
        count = min(round(owed), max(1, len(group) - 1))
        held |= set(group[:count])
        owed -= count
    if not held and len(entries) > 1:
        held = {next(iter(groups.values()))[0]}
    return [e for i, e in enumerate(entries) if i not in held], [entries[i] for i in sorted(held)]


def relabelled(entry: Entry, new: Mapping[int, int]) -> Entry:
    """The entry with other numbers for its classes."""
    return replace(entry, labels=tuple(new[label] for label in entry.labels))
