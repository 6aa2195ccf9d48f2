"""Sample and SampleSet: pictures with boxes or masks, whatever format they came from, handed out as batches.

Shape suffixes: N pictures, C channels, H rows, W columns, n boxes of one picture, M boxes of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from convscope.data.augment import crop, light
from convscope.data.sets import Normalisation
from convscope.data.streamed import Unread
from convscope.errors import DataError
from convscope.models import classes_of_heads

if TYPE_CHECKING:  # torchvision takes a second to import, and a digit needs none of it
    from torchvision import tv_tensors

IGNORE = 255  # a mask's value for pixels that count neither way

TaskName = Literal[
    "classify", "detect", "segment",
    "classify,detect", "classify,segment", "detect,segment", "classify,detect,segment",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture and what is known of it.

    `image`: uint8 [C, H, W]. `boxes`: float32 [n, 4] as x1 y1 x2 y2 in pixels, `labels`: int64 [n] their classes.
    `mask`: uint8 [H, W], a class each pixel, 255 where it does not count. `name`: where it came from. `label`: the one
    class of the picture.
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes | None = None
    labels: Tensor | None = None
    mask: tv_tensors.Mask | None = None
    name: str = ""
    label: int | None = None


class Boxes(NamedTuple):
    """The boxes of a batch, one below the other: wanted ones, or found ones with their scores.

    Shapes: boxes float32 [M, 4] (x1 y1 x2 y2, pixels), labels int64 [M], picture int64 [M] (place in the batch),
    scores float32 [M] in 0..1, all 1 where the boxes are the truth.
    """

    boxes: Tensor
    labels: Tensor
    picture: Tensor
    scores: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Boxes:
        """The same on another device."""
        return Boxes(*(t.to(device, non_blocking=non_blocking) for t in self))

    def of(self, index: int) -> Boxes:
        """Those of one picture."""
        return self.where(self.picture == index)

    def where(self, chosen: Tensor) -> Boxes:
        """Those that a mask or indices choose."""
        return Boxes(*(t[chosen] for t in self))


def joined(parts: Sequence[tuple[Tensor, Tensor]]) -> Boxes:
    """The true boxes of a batch from each picture's (boxes [n, 4], labels [n]).

    >>> joined([(torch.zeros(2, 4), torch.zeros(2)), (torch.zeros(1, 4), torch.ones(1))]).picture.tolist()
    [0, 0, 1]
    """
    counts = torch.tensor([len(labels) for _, labels in parts], dtype=torch.int64)
    boxes = torch.cat([boxes.as_subclass(Tensor).float() for boxes, _ in parts])
    labels = torch.cat([labels.long() for _, labels in parts])
    return Boxes(boxes, labels, torch.arange(len(parts)).repeat_interleave(counts), torch.ones(len(labels)))


@dataclass(frozen=True, slots=True, eq=False)
class SampleSet:
    """Samples of one size for one task, or for several; `classes` includes the background of masks, at 0.

    `samples` that are read when they are asked for (`Unread`) are not checked here.

    `normalisation` is applied when a batch is made, after augmentation, which may mirror pictures if `flip`.
    `categories` are the numbers that the data's own files give the classes, where they do.
    Raises: DataError if sizes differ, or boxes or masks are missing or wrong for the task.
    """

    samples: Sequence[Sample]
    classes: tuple[str, ...]
    task: TaskName
    normalisation: Normalisation = field(default=Normalisation())
    flip: bool = False
    categories: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError("samples: there are none; give at least one picture")
        if isinstance(self.samples, Unread):
            return
        for index, sample in enumerate(self.samples):
            if tuple(sample.image.shape) != self.shape:
                raise DataError(f"{_named(sample, index)}: is {_by(sample.image.shape)}, but the first picture is "
                                f"{_by(self.shape)}; bring all to one size")  # fmt: skip
        if not self.parts():
            _CHECKS[self.task](self)
        for task in self.parts():
            self.part(task)  # is checked as it is made

    @property
    def labels(self) -> Tensor:
        """The one class of each picture, int64 [N], of a set to classify."""
        return torch.tensor([s.label for s in self.samples])

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one picture."""
        return self.samples.shape if isinstance(self.samples, Unread) else tuple(self.samples[0].image.shape)

    def batch(self, indices: Tensor, *, draws: Tensor | None = None) -> tuple[Tensor, Boxes | Tensor | dict[str, Any]]:
        """The normalised pictures [B, C, H, W] at `indices`, and their boxes, masks int64 [B, H, W] or classes int64
        [B]; a dict of these for several tasks.

        `draws` [N, 6] are the samples' random numbers of an epoch (`augment.draws`); with them each picture is
        cropped and lit by its own row.
        """
        chosen = [self.samples[i] for i in indices.tolist()]
        if draws is not None:
            rows = draws[indices].tolist()
            chosen = [cropped(self._needed(s), row, flip=self.flip) for s, row in zip(chosen, rows, strict=True)]
        x = torch.stack([s.image.as_subclass(Tensor) for s in chosen]).float().div_(255)
        if draws is not None:
            x = light(x, draws[indices])
        targets = {task: self._targets(chosen, task) for task in self.parts()} or self._targets(chosen, self.task)
        return self.normalisation(x), targets

    def parts(self) -> tuple[TaskName, ...]:
        """The tasks of a set that serves several; none of one that serves one."""
        return tuple(self.task.split(",")) if "," in self.task else ()  # pyright: ignore[reportReturnType]

    def part(self, task: TaskName) -> SampleSet:
        """The same pictures for one of the tasks, with the classes that it tells apart."""
        own = classes_of_heads(self.task, len(self.classes))[task]
        return replace(self, task=task, classes=tuple(self.classes[i] for i in own))

    def as_classes(self, classes: Sequence[str]) -> SampleSet:
        """The same pictures for a network that learnt other classes, those of this set (by name) among them."""
        new = torch.tensor([classes.index(name) for name in self.classes])
        pixels = torch.full((256,), IGNORE, dtype=torch.uint8)
        pixels[: len(new)] = new.to(torch.uint8)

        def renamed(sample: Sample) -> Sample:
            mask = (
                sample.mask
                if sample.mask is None
                else _like(pixels[sample.mask.as_subclass(Tensor).long()], sample.mask)
            )
            labels = None if sample.labels is None or self.task == "segment" else new[sample.labels]
            return replace(sample, mask=mask, labels=labels)

        kept = self.samples
        changed = kept.then(renamed) if isinstance(kept, Unread) else tuple(map(renamed, kept))
        return replace(self, samples=changed, classes=tuple(classes))

    def class_counts(self) -> Tensor:
        """Pictures, boxes or pixels of each class, int64 [C]."""
        if self.task == "classify":
            return torch.bincount(self.labels, minlength=len(self.classes))
        counts = torch.zeros(256, dtype=torch.int64)
        for sample in self.samples:
            what = (
                sample.mask.as_subclass(Tensor).flatten()
                if self.task == "segment" and sample.mask is not None
                else sample.labels
            )
            counts += torch.bincount(what, minlength=256) if what is not None else 0
        return counts[: len(self.classes)]

    def subset(self, indices: Tensor) -> SampleSet:
        """The samples at `indices` as a set of their own."""
        kept, chosen = self.samples, indices.tolist()
        some = kept.only(chosen) if isinstance(kept, Unread) else tuple(kept[i] for i in chosen)
        return replace(self, samples=some)

    def thumbnail(self, index: int) -> Tensor:
        """A picture as it is: uint8 [C, H, W]."""
        return self.samples[index].image.as_subclass(Tensor)

    def _needed(self, sample: Sample) -> Sample:
        """The sample without what no task of the set asks for."""
        boxed, masked = "detect" in self.task, "segment" in self.task
        return replace(sample, boxes=sample.boxes if boxed else None, mask=sample.mask if masked else None)

    def _targets(self, samples: Sequence[Sample], task: str) -> Boxes | Tensor:
        if task == "classify":
            return torch.tensor([s.label for s in samples])
        if task == "segment":
            return torch.stack([s.mask.as_subclass(Tensor) for s in samples if s.mask is not None]).long()
        return joined([(s.boxes, s.labels) for s in samples if s.boxes is not None and s.labels is not None])


def _like(values: Tensor, other: Any) -> Any:
    from torchvision import tv_tensors

    return tv_tensors.wrap(values, like=other)  # pyright: ignore[reportCallIssue]


def cropped(sample: Sample, draws: Sequence[float], *, flip: bool = False) -> Sample:
    """The sample seen through a window that six numbers in -1..1 choose; boxes that leave the window are dropped."""
    from torchvision import tv_tensors

    boxes = sample.boxes
    image, boxes, mask = crop((sample.image, boxes, sample.mask), draws, flip=flip)
    if boxes is None or sample.labels is None:
        return replace(sample, image=image, mask=mask)
    height, width = sample.image.shape[1:]
    whole = boxes.as_subclass(Tensor)
    seen = whole.clamp(min=0).minimum(whole.new_tensor([width, height, width, height]))
    kept = _area(seen) >= MIN_SEEN * _area(whole)
    seen = tv_tensors.wrap(seen[kept], like=boxes)  # pyright: ignore[reportCallIssue]
    return replace(sample, image=image, boxes=seen, labels=sample.labels[kept], mask=mask)


MIN_SEEN = 0.4  # of a box, or else it is no longer asked for


def _area(boxes_n4: Tensor) -> Tensor:
    return (boxes_n4[:, 2:] - boxes_n4[:, :2]).clamp(min=0).prod(1)


def _check_boxes(data: SampleSet) -> None:
    """What would crash or poison a step, found before the first one."""
    num_classes = len(data.classes)
    for index, sample in enumerate(data.samples):
        who = _named(sample, index)
        if sample.boxes is None or sample.labels is None or len(sample.boxes) != len(sample.labels):
            raise DataError(f"{who}: has no boxes with one label each; give an empty list where there is nothing")
        for at, (box, label) in enumerate(zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True)):
            wrong = _wrong_box(box, data.shape) or _wrong_label(label, num_classes)
            if wrong:
                raise DataError(f"{who}: box {at} {wrong}")
    if not any(len(s.boxes) for s in data.samples if s.boxes is not None):
        raise DataError(f"samples: not one of the {len(data)} pictures has a box; there is nothing to learn from them")


def _wrong_box(box: list[float], shape: tuple[int, ...]) -> str | None:
    x1, y1, x2, y2 = box
    shown = f"({', '.join(f'{v:g}' for v in box)})"
    if not all(v - v == 0 for v in box):
        return f"{shown} holds NaN or infinity; remove it"
    if x2 <= x1 or y2 <= y1:
        return f"{shown} has no width or height; write x1 y1 x2 y2 with x1 < x2 and y1 < y2"
    if x2 <= 0 or y2 <= 0 or x1 >= shape[2] or y1 >= shape[1]:
        return f"{shown} lies outside the picture of {shape[2]}x{shape[1]}; boxes are in pixels"
    return None


def _wrong_label(label: int, num_classes: int) -> str | None:
    if 0 <= label < num_classes:
        return None
    return f"has label {label}, but there are {num_classes} classes (0 to {num_classes - 1})"


def _check_masks(data: SampleSet) -> None:
    num_classes, counts = len(data.classes), torch.zeros(256, dtype=torch.int64)
    if num_classes < 2:
        raise DataError(f"samples: masks of {num_classes} class teach nothing; there must be two, background included")
    for index, sample in enumerate(data.samples):
        if sample.mask is None or tuple(sample.mask.shape) != data.shape[1:]:
            found = "no mask" if sample.mask is None else f"a mask of {_by(sample.mask.shape)}"
            raise DataError(
                f"{_named(sample, index)}: has {found}, but one of {_by(data.shape[1:])} is needed; add or resize it"
            )
        counts += torch.bincount(sample.mask.as_subclass(Tensor).flatten(), minlength=256)
    unknown = [v for v in range(num_classes, IGNORE) if counts[v]]
    if unknown:
        listed = ", ".join(f"{v} ({int(counts[v]):,} pixels)" for v in unknown[:8]) + ", ..." * (len(unknown) > 8)
        raise DataError(f"samples: masks hold values that are no class: {listed}; there are {num_classes} classes "
                        f"(0 to {num_classes - 1}), and {IGNORE} is to be ignored")  # fmt: skip
    if not counts[:num_classes].any():
        raise DataError(f"samples: every pixel of the masks is {IGNORE}, to be ignored; there is nothing to learn")


def _named(sample: Sample, index: int) -> str:
    return sample.name or f"sample {index}"


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _check_labels(data: SampleSet) -> None:
    for index, sample in enumerate(data.samples):
        wrong = "has no class" if sample.label is None else _wrong_label(sample.label, len(data.classes))
        if wrong:
            raise DataError(f"{_named(sample, index)}: {wrong}; give each picture one of the classes")


_CHECKS = {"classify": _check_labels, "detect": _check_boxes, "segment": _check_masks}
