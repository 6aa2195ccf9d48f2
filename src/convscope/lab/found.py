"""What a trained network found in its test pictures: objects with their boxes, or the class of every pixel."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from convscope.data.samples import Boxes
from convscope.evaluate import Measured, evaluating
from convscope.lab.session import MissingError
from convscope.predict.drawing import colours

MOST = 400  # pictures that the page is told of: the worst ones


def told(measured: Measured) -> dict[str, Any]:
    """How right it is: the score with its interval, and the confusion matrix.

    A detector's matrix has a last row for what was found where nothing is, and a last column for what was missed.
    """
    result, images = measured.evaluation, measured.images
    facts = {
        "task": images.task, "classes": images.classes, "images": len(images), "confusion": result.confusion,
        "interval": result.interval, "colours": [f"rgb{c}" for c in colours(len(images.classes))],
    }  # fmt: skip
    if images.task == "detect":
        return facts | {"score": result.map, "half": result.map50}
    return facts | {"score": result.miou, "accuracy": result.accuracy}


def pictures(measured: Measured) -> dict[str, Any]:
    """The test pictures, worst first: true and found boxes, or how many pixels of each class were called what."""
    result, images = measured.evaluation, measured.images
    order = list(result.worst[:MOST])
    if images.task == "detect":
        true = images.batch(torch.tensor(order))[1]
        rows = [
            {"index": i, "true": _boxes(true.of(at)), "found": _boxes(result.found[i])} for at, i in enumerate(order)
        ]
        return {"of": len(images), "pictures": rows}
    said, true, count = _masks(measured, order)[0], images.batch(torch.tensor(order))[1], len(images.classes)
    rows = [
        {"index": i, "iou": result.image_ious[i], "counts": _counts(true[at], said[at], count)}
        for at, i in enumerate(order)
    ]
    return {"of": len(images), "pictures": rows}


def picture(measured: Measured, index: int) -> tuple[dict[str, Any], np.ndarray]:
    """One test picture in 0..1; of a segmenter also what is true, what was said, and how sure that was, HxW each.

    Raises: MissingError if there is no such picture.
    """
    images = measured.images
    if not 0 <= index < len(images):
        raise MissingError(f"picture {index}: there are test pictures 0 to {len(images) - 1}")
    pixels = images.thumbnail(index).float().numpy() / 255
    head = {"shape": pixels.shape}
    if images.task == "detect":
        return head, pixels
    said, sure = _masks(measured, [index])
    true = images.batch(torch.tensor([index]))[1]
    return head, np.concatenate([pixels, true.float().numpy(), said.float().numpy(), sure.numpy()])


def _masks(measured: Measured, chosen: list[int], *, batch: int = 16) -> tuple[Tensor, Tensor]:
    """The likeliest class of every pixel, and its probability. Shapes: [len(chosen), H, W]."""
    parts = []
    with evaluating(measured.model) as device:
        for at in torch.tensor(chosen).split(batch):
            x = measured.images.batch(at)[0].to(device)
            parts.append(measured.model(x).float().softmax(1).max(1))
    sure, said = (torch.cat([p[i] for p in parts]).cpu() for i in (0, 1))
    return said, sure


def _boxes(boxes: Boxes) -> list[list[float]]:
    """One row a box: x1, y1, x2, y2, class, score."""
    return torch.cat([boxes.boxes, boxes.labels[:, None], boxes.scores[:, None]], 1).tolist()


def _counts(true: Tensor, said: Tensor, count: int) -> list[int]:
    """Pixels by true class and said class, row by row; those that do not count are left out."""
    kept = true < count
    return torch.bincount(true[kept] * count + said[kept], minlength=count**2).tolist()
