"""Digit scenes: real handwritten digits on real photographs, with exact boxes and masks. Nothing is downloaded.

Three to six handwritten digits, 18 to 44 px, in a colour that stands out, lie apart from each
other on crops of photographs. What is learnt from uses their left halves, what is tested on the
right halves and digits by other hands of the split. A scene is a function of (seed, part, index).
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from convscope.data import embedded
from convscope.data.digits import CLASSES, digits
from convscope.data.samples import Sample, SampleSet, TaskName
from convscope.data.sets import Normalisation, Splits
from convscope.errors import DataError

SIZE = 128
NUM_SCENES = {"train": 1500, "val": 150, "test": 300}
NUM_DIGITS, DIGIT_SIZE = (3, 6), (18, 44)
PHOTOGRAPHS = ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "rocket")
CONTRAST = 0.35  # of the digit's luma to that of the picture behind it, in 0..1
NOISE = 0.02  # standard deviation, in 0..1
EDGE = (0.2, 0.6)  # grey values of an enlarged digit between which it turns from clear to opaque
BACKGROUND = "background"
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
NORMALISATION = Normalisation((0.45, 0.45, 0.45), (0.25, 0.25, 0.25))

SCENE_CLASSES: dict[str, tuple[str, ...]] = {"detect": CLASSES, "segment": (BACKGROUND, *CLASSES)}
SCENE_CLASSES |= dict.fromkeys(
    ("detect,segment", "classify,segment", "classify,detect,segment"), SCENE_CLASSES["segment"]
)
SCENE_CLASSES["classify,detect"] = CLASSES


def scenes(task: TaskName = "detect", *, shape: tuple[int, ...] = (3, SIZE, SIZE), seed: int = 0) -> Splits:
    """1,500 scenes to learn from, 150 to watch, 300 to test on, for detection, segmentation, or both.

    A box is tight around the visible pixels of its digit, those more opaque than clear; the mask gives them the
    digit's class plus one, and 0 to all others. Beside other tasks, a scene can be classified by its largest digit.
    Raises: DataError if another shape than 3x128x128 is asked for.

    >>> s = scenes("segment")
    >>> len(s.train), len(s.test), s.test.shape, s.test.classes[:2]
    (1500, 300, (3, 128, 128), ('background', '0'))
    """
    if tuple(shape) != (3, SIZE, SIZE):
        raise DataError(f"scenes: are 3x{SIZE}x{SIZE}, not {'x'.join(map(str, shape))}; leave image_size at {SIZE}")
    if task not in SCENE_CLASSES:
        raise DataError("scenes: are to detect or to segment, and to classify (their largest digit) beside that; "
                        f"use {' or '.join(SCENE_CLASSES)}")  # fmt: skip
    parts = {name: SampleSet(_samples(name, seed), SCENE_CLASSES[task], task, NORMALISATION) for name in NUM_SCENES}
    return Splits(parts["train"], parts["val"], parts["test"])


def scene(part: str, index: int, *, seed: int = 0) -> Sample:
    """One scene of a part: "train", "val" or "test".

    >>> scene("test", 7).image.shape
    torch.Size([3, 128, 128])
    """
    from torchvision import tv_tensors

    generator = np.random.Generator(np.random.Philox(key=[seed, 10_000_000 * list(NUM_SCENES).index(part) + index]))
    pixels, mask = _background(generator, right=part == "test"), np.zeros((SIZE, SIZE), np.uint8)
    drawn, boxes, labels = getattr(_digits(), part), [], []
    for top, left, size in _places(generator):
        at = int(generator.integers(len(drawn)))
        alpha = _enlarged(drawn.images[at, 0], size)
        rows, columns = slice(top, top + size), slice(left, left + size)
        behind = pixels[rows, columns]
        colour = _standing_out(generator, float((behind @ LUMA).mean()))
        pixels[rows, columns] = behind + alpha[..., None] * (colour - behind)
        visible = alpha > 0.5
        mask[rows, columns][visible] = int(drawn.labels[at]) + 1
        boxes.append(_tight(visible, top=top, left=left))
        labels.append(int(drawn.labels[at]))
    pixels = (pixels + generator.normal(scale=NOISE, size=pixels.shape)).clip(0, 1)
    return Sample(
        tv_tensors.Image(torch.from_numpy((255 * pixels).round().astype(np.uint8)).permute(2, 0, 1).contiguous()),
        tv_tensors.BoundingBoxes(torch.tensor(boxes), format="XYXY", canvas_size=(SIZE, SIZE)),  # pyright: ignore[reportCallIssue]
        torch.tensor(labels),
        tv_tensors.Mask(torch.from_numpy(mask)),
        f"scenes:{part}/{index}",
        labels[max(range(len(boxes)), key=lambda at: _area(boxes[at]))],
    )


@cache
def _digits() -> Splits:
    return digits((1, 8, 8))


@cache
def _samples(part: str, seed: int) -> tuple[Sample, ...]:
    return tuple(scene(part, index, seed=seed) for index in range(NUM_SCENES[part]))


def _places(generator: np.random.Generator) -> list[tuple[int, int, int]]:
    """(top, left, size) of squares that do not touch, as many as were drawn or as found room."""
    wanted, places = int(generator.integers(NUM_DIGITS[0], NUM_DIGITS[1] + 1)), []
    while len(places) < wanted:
        size = int(generator.integers(DIGIT_SIZE[0], DIGIT_SIZE[1] + 1))
        top, left = (int(v) for v in generator.integers(0, SIZE - size + 1, 2))
        if all(abs(2 * top + size - 2 * t - s) >= size + s or abs(2 * left + size - 2 * f - s) >= size + s
               for t, f, s in places):  # fmt: skip
            places.append((top, left, size))
    return places


def _background(generator: np.random.Generator, *, right: bool) -> np.ndarray:
    photograph = _photographs()[int(generator.integers(len(PHOTOGRAPHS)))]
    half = photograph.shape[1] // 2
    top = int(generator.integers(photograph.shape[0] - SIZE + 1))
    left = int(generator.integers(half - SIZE + 1)) + half * right
    return photograph[top : top + SIZE, left : left + SIZE].astype(np.float64) / 255


@cache
def _photographs() -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(Image.open(embedded.PHOTOGRAPHS[name]).convert("RGB")) for name in PHOTOGRAPHS)


def _enlarged(digit_88: Tensor, size: int) -> np.ndarray:
    """How opaque the digit is, [size, size] in 0..1."""
    grey = F.interpolate(digit_88[None, None], (size, size), mode="bilinear", align_corners=False)[0, 0]
    return ((grey - EDGE[0]) / (EDGE[1] - EDGE[0])).clamp(0, 1).double().numpy()


def _standing_out(generator: np.random.Generator, behind: float) -> np.ndarray:
    while True:
        colour = generator.random(3)
        if abs(float(colour @ LUMA) - behind) >= CONTRAST:
            return colour


def _area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _tight(visible: np.ndarray, *, top: int, left: int) -> list[float]:
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return [float(v) for v in (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)]
