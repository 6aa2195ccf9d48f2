"""Folders in any known format as Splits: every picture decoded in a process of its own, brought to the training size,
and kept as uint8.

Ten thousand pictures of 3x128x128 take 0.5 GB; sets that would take more than is allowed are read when they are asked
for. Files and labels are checked first, then each picture as it is read.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from convscope.data.decoding import Decoder
from convscope.data.entries import PARTS, Entry, Layout, split
from convscope.data.findings import Findings
from convscope.data.formats import read
from convscope.data.opened import open_entries, open_entry, read_entry, sample
from convscope.data.samples import Sample, SampleSet, TaskName
from convscope.data.sets import ImageSet, Normalisation, Splits
from convscope.data.streamed import MEMORY, Pixels, Unread, gigabytes
from convscope.data.tree import Tree, walk
from convscope.errors import DataError

FEWEST = 3  # pictures, one for each part


def load_folder(
    root: Path | str, *, task: TaskName, shape: tuple[int, ...], seed: int = 0, memory: float = MEMORY
) -> Splits:
    """The pictures below a folder with their labels, stretched to `shape` (C, H, W; C is 1 or 3).

    They are held if they take `memory` GB at most; if not, each is read when it is asked for. A missing test part is a
    fifth of the pictures, a missing val part a tenth of the rest, by class.
    Raises: DataError at the first thing that would stop training.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"{root}: pictures cannot be shown as {'x'.join(map(str, shape))}; give 1 or 3 channels")
    found, tree = Findings(Path(root), strict=True), walk(root)
    layout = read(tree, task, found)
    check_layout(layout, found)
    parted = split(layout.parts, seed=seed)
    if gigabytes(sum(map(len, parted.values())), shape, masks=task == "segment") <= memory:
        parts = _held(tree, parted, layout, found, shape)
        some = parts["train"]
    else:
        parts = {
            name: Unread(
                _reader(tree, entries, layout, found, shape), len(entries), shape=shape, in_order=bool(tree.members)
            )
            for name, entries in parted.items()
        }
        some = parts["train"].few()
    normalisation = _normalisation(some)
    labels = {name: [e.labels[0] for e in parted[name]] if task == "classify" else [] for name in PARTS}
    return Splits(*(_set(parts[name], layout, normalisation, labels[name]) for name in PARTS))


def _held(
    tree: Tree, parted: Mapping[str, Sequence[Entry]], layout: Layout, found: Findings, shape: tuple[int, ...]
) -> dict[str, tuple[Sample, ...]]:
    """All samples, read once."""
    work = [(name, e) for name, entries in parted.items() for e in entries]
    parts: dict[str, list[Sample]] = {name: [] for name in PARTS}
    with closing(open_entries(tree, [e for _, e in work], layout, found)) as opened:
        for (name, _), one in zip(work, opened, strict=True):
            parts[name] += [sample(one, shape)] if one is not None else []
    return {name: tuple(samples) for name, samples in parts.items()}


def _reader(
    tree: Tree, entries: Sequence[Entry], layout: Layout, found: Findings, shape: tuple[int, ...]
) -> Callable[[int], Sample]:
    """What reads a sample, with a decoder that ends with it."""
    decoder = Decoder()

    def read(at: int) -> Sample:
        opened = open_entry(entries[at], read_entry(tree, entries[at], decoder), layout, found)
        assert opened is not None  # strict findings raise
        return sample(opened, shape)

    weakref.finalize(read, decoder.close)
    return read


def load_some(
    root: Path | str, *, task: str | None, shape: tuple[int, ...], count: int, seed: int = 0
) -> tuple[ImageSet | SampleSet, Layout, int]:
    """A few training samples of a folder, the folder's layout, and how many of them could not be read.

    Raises: DataError if the format is not known, or not one sample can be shown.
    """
    found, tree = Findings(Path(root)), walk(root)
    layout = read(tree, task, found)
    entries = layout.parts.get("train", ())
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(entries)).tolist()
    labelled = [at for at in order if entries[at].labels]
    chosen = list(dict.fromkeys([*labelled[:1], *order]))[:count]
    opened = list(open_entries(tree, [entries[at] for at in chosen], layout, found))
    samples = [sample(o, shape) for o in opened if o is not None]
    if not samples:
        raise DataError(f"{root}: not one sample can be shown; `convscope data check {root}` says why")
    labels = [int(s.labels[0]) for s in samples if s.labels is not None and len(s.labels)]
    return _set(samples, layout, Normalisation(), labels), layout, len(opened) - len(samples)


def folder_layout(root: Path | str, task: TaskName) -> Layout:
    """The classes and entries of a folder, before its pictures are read.

    Raises: DataError at the first thing that would stop training.
    """
    found = Findings(Path(root), strict=True)
    layout = read(walk(root), task, found)
    check_layout(layout, found)
    return layout


def check_layout(layout: Layout, found: Findings) -> None:
    """What is wrong with the whole: too few pictures or classes, classes without an example."""
    entries = [e for part in layout.parts.values() for e in part]
    missing = {*PARTS} - layout.parts.keys()
    if len(entries) < (FEWEST if missing else 1):
        found.add(
            "few", ".", f"holds {len(entries)} pictures with labels", f"give {FEWEST} at least, one for each part"
        )
    elif missing and len(layout.parts["train"]) < 1 + len(missing):
        found.add("few", "train", f"holds {len(layout.parts['train'])} pictures, and {' and '.join(sorted(missing))} "
                  "are to come from them", "add pictures, or the missing parts")  # fmt: skip
    _check_classes(layout, entries, found)


def _check_classes(layout: Layout, entries: Sequence[Entry], found: Findings) -> None:
    needed = {"classify": 2, "detect": 1, "segment": 2}[layout.task]
    if len(layout.classes) < needed:
        found.add("classes", ".", f"has {len(layout.classes)} classes to {layout.task}", f"give {needed} at least")
    if len(layout.classes) > 255 and layout.task == "segment":
        found.add("classes", ".", f"has {len(layout.classes)} classes", "masks can tell 255 apart; leave some out")
    told = any(e.mask_file for e in entries)  # only the masks themselves know their classes
    used = {label for e in entries for label in e.labels}
    if layout.task == "detect" and entries and not used:
        found.add("no box", ".", "not one picture has a box", "there is nothing to learn from them; add boxes")
    elif layout.task == "classify" and len(used) == 1 and len(layout.classes) > 1:
        found.add("classes", ".", "all pictures are of one class", "add pictures of another")
    first = 1 if layout.task == "segment" else 0
    if unused := [] if told else [c for i, c in enumerate(layout.classes) if i >= first and i not in used]:
        shown = ", ".join(unused[:8]) + ", ..." * (len(unused) > 8)
        found.note("unused class", ".", f"no picture shows the classes {shown}", "add some, or leave the classes out")


def _set(
    samples: Sequence[Sample], layout: Layout, normalisation: Normalisation, labels: Sequence[int]
) -> ImageSet | SampleSet:
    if layout.task != "classify":
        facts = (layout.classes, cast(TaskName, layout.task), normalisation)
        return SampleSet(samples, *facts, categories=layout.categories)
    held = not isinstance(samples, Unread)
    images = torch.stack([s.image.as_subclass(Tensor) for s in samples]) if held else Pixels(samples)
    return ImageSet(images, torch.tensor(labels), layout.classes, normalisation)


def _normalisation(samples: Iterable[Sample]) -> Normalisation:
    """The mean and deviation of each channel, from sums, so that no second copy of the pictures is made."""
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for one in samples:
        x = one.image.as_subclass(Tensor).flatten(1).double() / 255
        count, total, squares = count + x.shape[1], total + x.sum(1), squares + x.pow(2).sum(1)
    mean = total / count
    std = (squares / count - mean.pow(2)).clamp(min=0).sqrt()
    return Normalisation(tuple(round(v, 4) for v in mean.tolist()), tuple(round(max(v, 0.01), 4) for v in std.tolist()))
