"""Boxes and masks drawn over pictures.

Shapes: pictures are uint8 [3 or 1, H, W].
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from convscope import fonts
from convscope.data.samples import IGNORE, Boxes
from convscope.table import printable

# Tableau's twenty colours, as matplotlib has them: ten strong ones, and the same lighter
TABLEAU = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (127, 127, 127), (188, 189, 34), (23, 190, 207), (174, 199, 232), (255, 187, 120), (152, 223, 138), (255, 152, 150),
    (197, 176, 213), (196, 156, 148), (247, 182, 210), (199, 199, 199), (219, 219, 141), (158, 218, 229),
)  # fmt: skip
OPACITY = 0.55
SMALLEST = 384  # px that the shorter side of a drawing has at least, so that text can be read


@cache
def colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """A colour for each of `count` classes; they repeat after twenty.

    >>> len(colours(3)), colours(30)[0] == colours(30)[20]
    (3, True)
    """
    return tuple(TABLEAU[i % len(TABLEAU)] for i in range(count))


def draw_boxes(picture_CHW: Tensor, boxes: Boxes, classes: Sequence[str], *, scores: bool = True) -> Tensor:
    """The picture, enlarged where it is small, with each box in the colour of its class, its name and its score.

    >>> from convscope.data.samples import joined
    >>> none = joined([(torch.zeros(0, 4), torch.zeros(0))])
    >>> draw_boxes(torch.zeros(3, 128, 128, dtype=torch.uint8), none, ["cat"]).shape
    torch.Size([3, 384, 384])
    """
    from torchvision.utils import draw_bounding_boxes

    picture, zoom = _enlarged(picture_CHW)
    if not len(boxes.labels):
        return picture
    names = [printable(str(classes[i])) for i in boxes.labels.tolist()]
    said = [f"{n} {s:.2f}" for n, s in zip(names, boxes.scores.tolist(), strict=True)] if scores else names
    palette = colours(len(classes))
    return draw_bounding_boxes(
        picture, zoom * boxes.boxes, said, [palette[i] for i in boxes.labels.tolist()], width=2,
        font=str(fonts.REGULAR), font_size=15,
        label_colors="white", fill_labels=True, label_background_colors=[palette[i] for i in boxes.labels.tolist()],
    )  # fmt: skip


def draw_mask(picture_CHW: Tensor, mask_HW: Tensor, *, num_classes: int, skip: int | None = 0) -> Tensor:
    """The picture, enlarged where it is small, with the pixels of each class but `skip` in its colour.

    >>> draw_mask(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.ones(4, 4), num_classes=2).shape
    torch.Size([3, 384, 384])
    """
    from torchvision.utils import draw_segmentation_masks

    picture, zoom = _enlarged(picture_CHW)
    mask = mask_HW.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    shown = [c for c in range(num_classes) if c not in (skip, IGNORE) and bool((mask == c).any())]
    if not shown:
        return picture
    palette = colours(num_classes)
    layers = torch.stack([mask == c for c in shown])
    return draw_segmentation_masks(picture, layers, alpha=OPACITY, colors=[palette[c] for c in shown])


def _enlarged(picture_CHW: Tensor) -> tuple[Tensor, int]:
    zoom = max(1, -(-SMALLEST // min(picture_CHW.shape[1:])))
    rgb = picture_CHW.expand(3, -1, -1) if len(picture_CHW) == 1 else picture_CHW
    return rgb.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2), zoom
