"""Coloured squares and discs on grey, for tests of training that must be over in seconds."""

from functools import cache

import torch
from torchvision import tv_tensors

from convscope.data import Sample, SampleSet, Splits

CLASSES = ("square", "disc")
SIZE = 64


@cache
def _samples(seed: int, count: int) -> tuple[Sample, ...]:
    g = torch.Generator().manual_seed(seed)
    ys, xs = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    samples = []
    for _ in range(count):
        image, mask = torch.rand(3, SIZE, SIZE, generator=g) * 60 + 90, torch.zeros(SIZE, SIZE, dtype=torch.uint8)
        boxes, labels = [], []
        for column in range(2):
            r = int(torch.randint(7, 14, (1,), generator=g))
            x = 32 * column + int(torch.randint(r, 33 - r, (1,), generator=g))
            y, label = (
                int(torch.randint(r, SIZE + 1 - r, (1,), generator=g)),
                int(torch.randint(0, 2, (1,), generator=g)),
            )
            dx, dy = xs + 0.5 - x, ys + 0.5 - y
            inside = (dx.abs().maximum(dy.abs()) < r) if label == 0 else (dx**2 + dy**2 < r * r)
            image[:, inside] = (
                torch.tensor([[250.0], [30.0], [20.0]]) if label == 0 else torch.tensor([[20.0], [40.0], [240.0]])
            )
            mask[inside] = label + 1
            boxes.append([x - r, y - r, x + r, y + r])
            labels.append(label)
        wrapped = tv_tensors.BoundingBoxes(torch.tensor(boxes).float(), format="XYXY", canvas_size=(SIZE, SIZE))
        mask, labelled = tv_tensors.Mask(mask), (wrapped, torch.tensor(labels))
        larger = labels[max(range(2), key=lambda at: boxes[at][2] - boxes[at][0])]
        samples.append(Sample(tv_tensors.Image(image.to(torch.uint8)), *labelled, mask, label=larger))
    return tuple(samples)


def tiny(task: str, *, train: int = 48) -> Splits:
    """Sets for detection, for segmentation with a background, or for both, and to classify the larger of the two."""
    classes = CLASSES if task in ("detect", "classify,detect") else ("ground", *CLASSES)
    return Splits(*(SampleSet(_samples(seed, n), classes, task) for seed, n in ((0, train), (1, 8), (2, 12))))


def offer(datasets: dict) -> None:
    """Make `tiny` a data set of every task that scenes serve."""
    for task in [t for t in datasets if t != "classify"]:
        classes = tiny(task, train=1).train.classes
        datasets[task]["tiny"] = (classes, lambda shape, seed, task=task: tiny(task))
