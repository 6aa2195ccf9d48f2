"""What a network says of pictures."""

from collections.abc import Sequence

from torch import Tensor

from convscope.models import OneHead, classes_of_heads
from convscope.predict.answers import Answer, answer
from convscope.predict.classification import Prediction, Predictions, predict
from convscope.predict.joint import ObjectsAndRegions
from convscope.predict.objects import ClassShare, FoundObject, Objects, Regions, detect, segment
from convscope.predict.saving import save_predictions
from convscope.runs.loaded import LoadedModel

__all__ = [
    "Answer",
    "ClassShare",
    "FoundObject",
    "Objects",
    "ObjectsAndRegions",
    "Prediction",
    "Predictions",
    "Regions",
    "answer",
    "detect",
    "predict",
    "predict_any",
    "save_predictions",
    "segment",
]


def predict_any(
    loaded: LoadedModel, x_NCHW: Tensor, *, names: Sequence[str], sizes: Sequence[tuple[int, int]],
    top: int = 5, threshold: float = 0.4,
) -> Predictions | Objects | Regions | ObjectsAndRegions:  # fmt: skip
    """What a model says of pictures, in the manner of the task that it learnt.

    `x_NCHW` are the pictures as the model takes them; boxes and masks are told for pictures of `sizes` (H, W).
    Raises: ModelError if the model does not give what its task needs.
    """
    classes = loaded.class_names()
    if loaded.task == "detect,segment":
        detects = [classes[i] for i in classes_of_heads(loaded.task, len(classes))["detect"]]
        detector, segmenter = (OneHead(loaded.model, head) for head in ("detect", "segment"))
        return ObjectsAndRegions(
            detect(detector, x_NCHW, classes=detects, names=names, sizes=sizes, threshold=threshold),
            segment(segmenter, x_NCHW, classes=classes, names=names, sizes=sizes),
        )
    if loaded.task == "classify":
        return predict(loaded.model, x_NCHW, classes=classes, top=top, names=names)
    if loaded.task == "detect":
        return detect(loaded.model, x_NCHW, classes=classes, names=names, sizes=sizes, threshold=threshold)
    return segment(loaded.model, x_NCHW, classes=classes, names=names, sizes=sizes)
