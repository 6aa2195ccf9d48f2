"""One answer of a network, as something that an attribution can ask about."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convscope.errors import InputError, ModelError, nearest
from convscope.evaluate import checked_logits, evaluating
from convscope.explain.sheets import as_rgb
from convscope.explain.targets import Target, logit_sum, unit
from convscope.models import Candidates
from convscope.runs.loaded import LoadedModel
from convscope.table import number
from convscope.tasks import Detection

MARK = "#f6b36b"
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """A class that a network sees in one picture, and where.

    `target` gives the score that is asked about: a class's logit. `probability` is what the network makes of it (of
    segmentation, the mean over all pixels). `box` (x1 y1 x2 y2) and `pixel` (row, column) are in the network's
    picture; `share` is how much of the picture has the class. `layer` is the one for Grad-CAM where its own choice
    would not do.
    """

    target: int | Target
    name: str
    probability: float
    box: Corners | None = None
    pixel: tuple[int, int] | None = None
    share: float | None = None
    layer: str | None = None

    def __str__(self) -> str:
        if self.share is not None:
            return f"class {self.name}, {number(100 * self.share)} % of the pixels"
        where = f" at row {self.pixel[0]}, column {self.pixel[1]}" if self.pixel else ""
        return f"{'box of ' if self.box else ''}class {self.name}{where}, {number(100 * self.probability)} %"

    def marked(self, picture_HWC: np.ndarray) -> np.ndarray:
        """The picture, pixels in 0..1, with the box outlined or the pixel ringed."""
        from torchvision.utils import draw_bounding_boxes

        row, column = self.pixel or (0, 0)
        corners = self.box or (self.pixel and (column - 2, row - 2, column + 2, row + 2))
        if corners is None:
            return picture_HWC
        high, wide = picture_HWC.shape[:2]
        x1, y1, x2, y2 = (min(max(round(v), 0), n - 1) for v, n in zip(corners, (wide, high) * 2, strict=True))
        if x2 < x1 or y2 < y1:
            return picture_HWC
        pixels = torch.from_numpy(as_rgb(picture_HWC)).movedim(-1, 0)
        drawn = draw_bounding_boxes(pixels, torch.tensor([[x1, y1, x2, y2]]), colors=MARK)
        return drawn.movedim(0, -1).numpy() / 255

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: what is known of it."""
        known = {"box": self.box, "pixel": self.pixel, "share": self.share}
        told = {"class": self.name, "probability": self.probability}
        return told | {k: v for k, v in known.items() if v is not None}


def answer(
    loaded: LoadedModel, x: Tensor, *, target: str | None = None, box: int | None = None,
    pixel: tuple[int, ...] | None = None,
) -> Answer:  # fmt: skip
    """What the network says of one picture: the likeliest, or what is asked for.

    x: 1xCxHxW, as the model takes it. target: a class, by name or number. box: of a detector, which of the boxes that
    `predict` finds, 0 the best, of the class if one is given. pixel: row and column, of a segmenter; without it the
    class's logits are added over all pixels. If no class is given it is the one of most pixels, the first class (the
    background) only where there is no other.
    Raises: InputError if there is no such class, box or pixel, or the task has none; ModelError if the outputs do not
    fit the task.

    >>> from convscope.runs.loaded import load_model
    >>> answer(load_model("LeNet5"), torch.zeros(1, 1, 32, 32), target="3").target
    3
    """
    task = loaded.task
    if box is not None and task != "detect":
        raise InputError(f"--box: {loaded.spec} learnt to {task}, and gives no boxes; leave it out")
    if pixel is not None and task != "segment":
        raise InputError(f"--pixel: {loaded.spec} learnt to {task}, not to segment; leave it out")
    names = loaded.class_names()
    label = None if target is None else _index(target, names)
    if task == "classify":
        with evaluating(loaded.model) as device:
            shares = checked_logits(loaded.model, x.to(device), num_classes=len(names))[0].double().softmax(0)
        chosen = int(shares.argmax()) if label is None else label
        return Answer(chosen, names[chosen], float(shares[chosen]))
    with evaluating(loaded.model) as device:
        outputs = loaded.model(x.to(device))
    return _detected(loaded, outputs, label, box) if task == "detect" else _segmented(loaded, outputs, label, pixel)


def _index(target: str, names: tuple[str, ...]) -> int:
    if target in names:
        return names.index(target)
    if target.isdecimal() and int(target) < len(names):
        return int(target)
    hint = f"classes are 0 to {len(names) - 1}" if target.isdecimal() else nearest(target, names)
    raise InputError(f"--target {target!r}: the model has no such class; {hint}")


def _detected(loaded: LoadedModel, outputs: Any, label: int | None, box: int | None) -> Answer:
    names = loaded.class_names()
    if not isinstance(outputs, Candidates):
        raise ModelError(f"model: is no detector; it gives a {type(outputs).__name__}")
    scores = outputs.logits[0].float().sigmoid()
    if box is None:
        place = int((scores.amax(1) if label is None else scores[:, label]).argmax())
    else:
        found = Detection(len(names)).decode(outputs)
        found = found if label is None else found.where(found.labels == label)
        if box >= len(found.labels):
            of = "" if label is None else f" of class {names[label]}"
            raise InputError(f"--box {box}: the network finds {len(found.labels)} boxes{of}; the best is --box 0")
        label = int(found.labels[box])
        same = (outputs.boxes[0] == found.boxes[box]).all(1)
        place = int(scores[:, label].where(same, -1.0).argmax())
    label = int(scores[place].argmax()) if label is None else label
    x1, y1, x2, y2 = outputs.boxes[0, place].tolist()
    layer = _read_by(loaded.model, int(outputs.strides[place]))
    score = unit(place, label)
    return Answer(
        lambda given: score(given.logits), names[label], float(scores[place, label]), (x1, y1, x2, y2), layer=layer
    )


def _read_by(model: Any, stride: int) -> str | None:
    """The map that a box of this stride was read off: the head itself runs once a map, and cannot be asked."""
    for path, module in model.named_modules():
        if hasattr(module, "neck") and stride in getattr(module, "strides", ()):
            return f"{path}.neck.smooth.{module.strides.index(stride)}"
    return None


def _segmented(loaded: LoadedModel, outputs: Any, label: int | None, pixel: tuple[int, ...] | None) -> Answer:
    names = loaded.class_names()
    if not isinstance(outputs, Tensor) or outputs.ndim != 4 or outputs.shape[1] != len(names):
        raise ModelError(f"model: is no segmenter of {len(names)} classes; it gives a {type(outputs).__name__}")
    shares, (high, wide) = outputs[0].double().softmax(0), outputs.shape[2:]
    if pixel is not None:
        if len(pixel) != 2 or pixel[0] >= high or pixel[1] >= wide:
            at = ",".join(map(str, pixel))
            raise InputError(f"--pixel {at}: the network's picture is {high}x{wide}; give row,column within it")
        row, column = pixel
        label = int(shares[:, row, column].argmax()) if label is None else label
        told = unit(label, row, column)
        return Answer(
            told,
            names[label],
            float(shares[label, row, column]),
            pixel=(row, column),
            layer=_drawn_by(loaded.model, pixel=True),
        )
    counts = torch.bincount(shares.argmax(0).flatten(), minlength=len(names))
    if label is None:
        label = int(counts[1:].argmax()) + 1 if counts[1:].any() else 0
    share = int(counts[label]) / (high * wide)
    layer = _drawn_by(loaded.model, pixel=False)
    return Answer(logit_sum(label), names[label], float(shares[label].mean()), share=share, layer=layer)


def _drawn_by(model: Any, *, pixel: bool) -> str | None:
    """The coarse map that tells classes from each other, or for one pixel the fine map that draws outlines."""
    for path, module in model.named_modules():
        if hasattr(module, "context") and hasattr(module, "refine"):
            return f"{path}.refine.{len(module.refine) - 1}" if pixel else f"{path}.context"
    return None
