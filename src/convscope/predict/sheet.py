"""Samples of a data set on one sheet, with their labels, as they enter a network."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from convscope.data.augment import draws
from convscope.data.samples import SampleSet
from convscope.data.sets import ImageSet, Normalisation
from convscope.fonts import font
from convscope.predict.drawing import colours, draw_boxes, draw_mask
from convscope.table import printable

COLUMNS, GAP, CAPTION = 4, 8, 26  # pictures a row; pixels
INK, PAPER = (40, 40, 40), (255, 255, 255)


def sheet(data: ImageSet | SampleSet, *, augmented: bool = False, seed: int = 0) -> Image.Image:
    """All samples of a (small) set: boxes drawn, masks coloured, classes below; `augmented` as in the first epoch.

    >>> one = ImageSet(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), ("cat", "dog"))
    >>> sheet(one).size
    (792, 426)
    """
    plain, count = replace(data, normalisation=Normalisation()), len(data)
    x, targets = plain.batch(torch.arange(count), draws=draws(count, seed=seed, epoch=1) if augmented else None)
    pictures = x.mul(255).round().to(torch.uint8)
    cells = [_cell(data, picture, targets, index) for index, picture in enumerate(pictures)]
    width, height = cells[0].size
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    whole = Image.new("RGB", (GAP + columns * (width + GAP), GAP + rows * (height + GAP)), PAPER)
    for at, cell in enumerate(cells):
        whole.paste(cell, (GAP + at % columns * (width + GAP), GAP + at // columns * (height + GAP)))
    return whole


def _cell(data: ImageSet | SampleSet, picture_CHW: Tensor, targets: object, index: int) -> Image.Image:
    """A picture with its labels, and what they are below it."""
    if isinstance(data, ImageSet):
        shown = [int(data.labels[index])]
        drawn = draw_mask(picture_CHW, torch.zeros(picture_CHW.shape[1:]), num_classes=1)
    elif isinstance(targets, Tensor):
        shown = [c for c in targets[index].unique().tolist() if 0 < c < len(data.classes)]
        drawn = draw_mask(picture_CHW, targets[index], num_classes=len(data.classes))
    else:
        boxes = targets.of(index)  # pyright: ignore[reportAttributeAccessIssue]
        shown = sorted(set(boxes.labels.tolist()))
        drawn = draw_boxes(picture_CHW, boxes, data.classes, scores=False)
    picture = Image.fromarray(drawn.permute(1, 2, 0).numpy())
    palette = colours(len(data.classes))
    words = [(printable(data.classes[c]), palette[c]) for c in shown] or [("nothing", INK)]
    return _with_caption(picture, words)


def _with_caption(picture: Image.Image, words: Sequence[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    cell = Image.new("RGB", (picture.width, picture.height + CAPTION), PAPER)
    cell.paste(picture)
    pen, x = ImageDraw.Draw(cell), 2.0
    for word, colour in words:
        pen.rectangle((x, picture.height + 8, x + 11, picture.height + 19), fill=colour)
        pen.text((x + 16, picture.height + 4), word, fill=INK, font=font(15))
        x += 16 + pen.textlength(word, font=font(15)) + 14
    return cell
