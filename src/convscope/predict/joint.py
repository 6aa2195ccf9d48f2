"""What a network that finds objects and marks regions says of a picture: both, in one drawing."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from convscope.predict.drawing import draw_boxes
from convscope.predict.objects import Objects, Regions
from convscope.table import Tables


@dataclass(frozen=True, slots=True, eq=False)
class ObjectsAndRegions:
    """The objects in pictures and the classes of their pixels."""

    objects: Objects
    regions: Regions

    @property
    def names(self) -> tuple[str, ...]:
        """What the pictures are called."""
        return self.objects.names

    def table(self) -> Tables:
        """A table of each."""
        return Tables((self.objects.table(), self.regions.table()))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: `objects` and `regions`."""
        return self.objects.data() | self.regions.data()

    def coco(self) -> dict[str, Any]:
        """The objects as COCO has them."""
        return self.objects.coco()

    def drawn(self, index: int, picture_CHW: Tensor) -> Tensor:
        """A picture, uint8, with the classes of its pixels and, in the same colours, the objects over them."""
        marked, boxes = self.regions.drawn(index, picture_CHW), self.objects.boxes[index]
        zoom, background = (
            marked.shape[1] // picture_CHW.shape[1],
            len(self.regions.classes) - len(self.objects.classes),
        )
        own = boxes._replace(boxes=zoom * boxes.boxes, labels=boxes.labels + background)
        return draw_boxes(marked, own, self.regions.classes)
