"""The part of the page that is of one task: its numbers, what it confuses, and its worst cases drawn."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convscope.data.samples import Boxes, TaskName
from convscope.data.sets import DataSet
from convscope.evaluate import Measured, evaluating
from convscope.explain.pictures import data_uri
from convscope.predict.drawing import draw_boxes, draw_mask
from convscope.tasks import Segmentation

THUMBNAILS = 6  # wrong pictures shown in one cell of the confusion matrix; the rest are counted
WORST = 7


def thumbnail(images: DataSet, index: int, zoom: int) -> str:
    """A picture as a `data:` address, each pixel `zoom` times as large."""
    values = images.thumbnail(index).numpy()
    picture = Image.fromarray(values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0)))
    return data_uri(picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST))


def _classify(measured: Measured) -> dict[str, Any]:
    found, count = measured.evaluation, len(measured.images)
    return {
        "part": "classify.html",
        "meaning": "accuracy is the share of pictures named rightly.",
        "tiles": [
            _tile("test accuracy", found.accuracy, found.interval),
            {"value": f"{len(found.wrong)} of {count}", "name": "test pictures wrong"}
            | {"more": "none of them was trained on"},
        ],
        "matrix": _matrix(measured),
    }


def _detect(measured: Measured) -> dict[str, Any]:
    found, images = measured.evaluation, measured.images
    chosen = _worst_and_best(found.worst)
    true = images.batch(torch.tensor(chosen))[1]

    def drawn(index: int, boxes: Boxes, *, scores: bool) -> str:
        return _uri(draw_boxes(images.thumbnail(index), boxes, images.classes, scores=scores))

    pairs = [
        {"index": i, "true": drawn(i, true.of(at), scores=False), "told": f"{found.mistakes[i]} mistakes"}
        | {"said": drawn(i, found.found[i].where(found.found[i].scores >= 0.4), scores=True)}
        for at, i in enumerate(chosen)
    ]
    return {
        "part": "drawn.html",
        "meaning": "mAP is COCO's mean average precision, over classes and overlaps of 0.50 to 0.95.",
        "tiles": [
            _tile("test mAP", found.map, found.interval),
            {"value": f"{100 * found.map50:.2f} %", "name": "at an overlap of 0.50"}
            | {"more": f"{found.num_images} test pictures"},
        ],
        "classes": found.table().html(),
        "matrix": _counts([*images.classes, "nothing"], [*images.classes, "missed"], found.confusion)
        | {"told": "Objects by true and said class: boxes that overlap by half and score 0.4 or more. The last column "
                   "counts the missed, the last row what was found where nothing is."},
        "pairs": pairs,
        "told_of_pairs": "Left what is there, right what the network says, with its scores.",
    }  # fmt: skip


def _segment(measured: Measured) -> dict[str, Any]:
    found, images = measured.evaluation, measured.images
    chosen, count = _worst_and_best(found.worst), len(images.classes)
    x, true = images.batch(torch.tensor(chosen))
    with evaluating(measured.model) as device:
        said = Segmentation(count).decode(measured.model(x.to(device))).cpu()

    def drawn(index: int, mask: Tensor) -> str:
        return _uri(draw_mask(images.thumbnail(index), mask, num_classes=count))

    pairs = [
        {"index": i, "true": drawn(i, true[at]), "said": drawn(i, said[at])}
        | {"told": f"mIoU {100 * found.image_ious[i]:.1f} %"}
        for at, i in enumerate(chosen)
    ]
    return {
        "part": "drawn.html",
        "meaning": "mIoU is the mean over classes of intersection over union.",
        "tiles": [
            _tile("test mIoU", found.miou, found.interval),
            {"value": f"{100 * found.accuracy:.2f} %", "name": "of pixels right"}
            | {"more": f"{found.num_images} test pictures"},
        ],
        "classes": found.table().html(),
        "matrix": _counts(images.classes, images.classes, found.confusion)
        | {"told": "Pixels by true class (rows) and said class (columns)."},
        "pairs": pairs,
        "told_of_pairs": "Left what is there, right what the network says.",
    }  # fmt: skip


def _joint(measured: Measured) -> dict[str, Any]:
    told = {task: PARTS[task](own) | {"of": f" ({task})"} for task, own in measured.parts().items()}
    scores = " and ".join({"classify": "accuracy", "detect": "mAP", "segment": "mIoU"}[task] for task in told)
    return {
        "part": "joint.html",
        "meaning": " ".join([f"score is the mean of {scores}.", *(p["meaning"] for p in told.values())]),
        "tiles": [tile for part in told.values() for tile in part["tiles"]],
        "parts": list(told.values()),
    }


PARTS: Mapping[str, Callable[[Measured], dict[str, Any]]] = {
    "classify": _classify,
    "detect": _detect,
    "segment": _segment,
    **{task: _joint for task in get_args(TaskName) if "," in task},
}


def _tile(name: str, share: float, interval: tuple[float, float]) -> dict[str, str]:
    low, high = (100 * bound for bound in interval)
    return {"value": f"{100 * share:.2f} %", "name": name, "more": f"95 % interval {low:.2f} to {high:.2f} %"}


def _worst_and_best(worst: Sequence[int]) -> list[int]:
    return list(dict.fromkeys([*worst[:WORST], worst[-1]]))


def _uri(picture_CHW: Tensor) -> str:
    return data_uri(Image.fromarray(picture_CHW.permute(1, 2, 0).numpy()))


def _counts(names: Sequence[str], said: Sequence[str], confusion: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A matrix of counts, each cell shaded by its share of the row."""
    rows = [
        {"name": name, "cells": [{"count": n, "right": a == b, "shade": round(n / max(1, sum(line)), 3)}
                                 for b, n in enumerate(line)]}
        for a, (name, line) in enumerate(zip(names, confusion, strict=True))
    ]  # fmt: skip
    return {"said": list(said), "rows": rows}


def _matrix(measured: Measured) -> list[dict[str, Any]]:
    """Rows of the confusion matrix: for each cell its count, its shade, and the wrong pictures in it."""
    evaluation, images = measured.evaluation, measured.images
    counts = np.asarray(evaluation.confusion)
    wrong: dict[tuple[int, int], list[int]] = {}
    for index in evaluation.wrong:
        wrong.setdefault((int(images.labels[index]), int(evaluation.predictions[index])), []).append(index)
    rows = []
    for true, line in enumerate(counts):
        share = line / max(1, line.sum())
        cells = [
            {
                "count": int(n),
                "right": true == said,
                "shade": round(float(share[said]), 3),
                "pictures": [
                    {"uri": thumbnail(images, i, 1), "index": i} for i in wrong.get((true, said), [])[:THUMBNAILS]
                ],
                "said": images.classes[said],
            }
            for said, n in enumerate(line)
        ]
        rows.append({"name": images.classes[true], "cells": cells})
    return rows
