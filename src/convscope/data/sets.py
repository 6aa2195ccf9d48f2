"""ImageSet: labelled pictures held in memory, handed out as batches.

Shape suffixes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from convscope.data.augment import affine
from convscope.data.streamed import Pixels
from convscope.errors import DataError

Held = TypeVar("Held", bound="DataSet", covariant=True)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What is taken from each channel, and what it is then divided by: `(x - mean) / std`, x in 0..1."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise DataError(f"normalisation: needs one mean and one positive std a channel, got {self.mean} {self.std}")

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """The normalised pictures; one value serves all channels.

        >>> Normalisation((0.5,), (0.25,))(torch.ones(1, 1, 1, 1)).item()
        2.0
        """
        mean, std = self._numbers(x_NCHW)
        return (x_NCHW - mean).div_(std)

    def undo(self, x_NCHW: Tensor) -> Tensor:
        """The pictures that were normalised, in 0..1 again.

        >>> Normalisation((0.5,), (0.25,)).undo(torch.full((1, 1, 1, 1), 2.0)).item()
        1.0
        """
        mean, std = self._numbers(x_NCHW)
        return x_NCHW * std + mean

    def _numbers(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.tensor(v, device=x_NCHW.device).view(1, -1, 1, 1) for v in (self.mean, self.std))


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Pictures with one class each.

    `images` is NCHW, float32 in 0..1 or uint8 in 0..255, or `Pixels` that are read when they are asked for; `labels`
    is int64 [N]; both stay on the CPU.
    `normalisation` is applied when a batch is made, after augmentation.
    Raises: DataError if a label is not one of the classes, or a picture holds NaN.

    >>> s = ImageSet(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), classes=("cat", "dog"))
    >>> len(s), s.shape
    (2, (1, 8, 8))
    """

    images: Tensor | Pixels
    labels: Tensor
    classes: tuple[str, ...]
    normalisation: Normalisation = field(default=Normalisation())

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.labels) or len(self.labels) == 0:
            raise DataError(
                f"image set: needs NCHW images with one label each and at least one image, "
                f"got {tuple(self.images.shape)} images and {tuple(self.labels.shape)} labels"
            )
        bad = ((self.labels < 0) | (self.labels >= len(self.classes))).nonzero().flatten().tolist()
        if bad:
            raise DataError(
                f"image set: sample {bad[0]} has label {int(self.labels[bad[0]])}, but there are "
                f"{len(self.classes)} classes (0 to {len(self.classes) - 1}); {len(bad)} such samples in all"
            )
        if isinstance(self.images, Tensor) and self.images.is_floating_point():
            bad = (~self.images.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
            if bad:
                raise DataError(f"image set: sample {bad[0]} holds NaN or infinity; {len(bad)} such samples in all")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one picture."""
        return tuple(self.images.shape[1:])

    def batch(self, indices: Tensor, *, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The normalised pictures [B, C, H, W] and labels [B] at `indices`.

        `draws` [N, 6] are the samples' random numbers of an epoch (`augment.draws`); with them the pictures
        are augmented, each by its own row, so that a sample looks the same in whatever batch it comes.
        """
        x = self.images[indices]
        if not x.is_floating_point():
            x = x.float().div_(255)
        if draws is not None:
            x = affine(x, draws[indices])
        return self.normalisation(x), self.labels[indices]

    def class_counts(self) -> Tensor:
        """Pictures of each class, int64 [C]."""
        return torch.bincount(self.labels, minlength=len(self.classes))

    def thumbnail(self, index: int) -> Tensor:
        """A picture as it is: uint8 [C, H, W]."""
        pixels = self.images[index]
        return pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().to(torch.uint8)

    def as_classes(self, classes: Sequence[str]) -> "ImageSet":
        """The same pictures for a network that learnt other classes, those of this set (by name) among them."""
        new = torch.tensor([classes.index(name) for name in self.classes])
        return ImageSet(self.images, new[self.labels], tuple(classes), self.normalisation)

    def subset(self, indices: Tensor) -> "ImageSet":
        """The samples at `indices` as a set of their own."""
        return ImageSet(self.images[indices], self.labels[indices], self.classes, self.normalisation)


class DataSet(Protocol):
    """What the trainer and `evaluate` need of a set, whatever it holds."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        ...

    @property
    def normalisation(self) -> Normalisation:
        """What is done to every picture of a batch."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one picture."""
        ...

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, *, draws: Tensor | None = None) -> tuple[Tensor, Any]:
        """Pictures and targets; `draws` are the random numbers of an epoch."""
        ...

    def class_counts(self) -> Tensor:
        """How often each class occurs, int64 [C]: pictures, boxes or pixels."""
        ...

    def thumbnail(self, index: int) -> Tensor:
        """A picture as it is: uint8 [C, H, W]."""
        ...


@dataclass(frozen=True, slots=True)
class Splits(Generic[Held]):
    """Three sets without a sample in common: to learn from, to watch while training, to report on once."""

    train: Held
    val: Held
    test: Held
