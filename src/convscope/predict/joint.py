"""What a network with several heads says of pictures: all of it, in one drawing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from convscope.predict.classification import Predictions
from convscope.predict.drawing import draw_boxes
from convscope.predict.objects import Objects, Regions
from convscope.table import Tables


@dataclass(frozen=True, slots=True)
class Together:
    """What each head says, by its task."""

    of: Mapping[str, Any]

    @property
    def classified(self) -> Predictions | None:
        """The classes of the pictures, if it learnt them."""
        return self.of.get("classify")

    @property
    def objects(self) -> Objects | None:
        """The objects in them, if it learnt them."""
        return self.of.get("detect")

    @property
    def regions(self) -> Regions | None:
        """The classes of their pixels, if it learnt them."""
        return self.of.get("segment")

    @property
    def names(self) -> tuple[str, ...]:
        """What the pictures are called."""
        return (self.objects or self.of["segment"]).names

    def table(self) -> Tables:
        """A table of each."""
        return Tables(tuple(told.table() for told in self.of.values()))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON, such as `objects` and `regions`."""
        return {key: rows for told in self.of.values() for key, rows in told.data().items()}

    def drawn(self, index: int, picture_CHW: Tensor) -> Tensor:
        """A picture, uint8, with the classes of its pixels and, in the same colours, the objects over them."""
        if self.objects is None or self.regions is None:
            return (self.objects or self.of["segment"]).drawn(index, picture_CHW)
        marked, boxes = self.regions.drawn(index, picture_CHW), self.objects.boxes[index]
        zoom, background = (
            marked.shape[1] // picture_CHW.shape[1],
            len(self.regions.classes) - len(self.objects.classes),
        )
        own = boxes._replace(boxes=zoom * boxes.boxes, labels=boxes.labels + background)
        return draw_boxes(marked, own, self.regions.classes)
