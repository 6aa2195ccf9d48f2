"""A model ready to be looked at, whether it is a name or a trained run, and pictures as it takes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convscope.data.digits import NORMALISATION
from convscope.data.folder import resize
from convscope.data.images import Picture, photograph, to_channels
from convscope.data.sets import Normalisation
from convscope.engines import ENDINGS, Card, on_cpu, open_engine
from convscope.errors import ModelError
from convscope.explain.capture import as_model
from convscope.graph import record
from convscope.models import MODELS, imagenet, ready
from convscope.runs.folder import open_run

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of torchvision's weights

MIDDLE = 0.875  # the share of the shorter side on which ImageNet networks are measured


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A network in evaluation mode, and how pictures enter it.

    `shape` is (C, H, W); `classes` are None where the network has no names for them; `trained` is False for
    fresh random weights; `task` is what it learnt, classification if nobody says. `middle` cuts out the middle of a
    picture, as ImageNet's are, and keeps its proportions. `data` and `seed` are those of its training, where it was
    trained here; `categories` the numbers that those data give the classes.
    """

    spec: str
    model: nn.Module
    shape: tuple[int, ...]
    normalisation: Normalisation
    classes: tuple[str, ...] | None = None
    trained: bool = False
    task: str = "classify"
    middle: bool = False
    data: str = ""
    seed: int = 0
    categories: Mapping[str, int] = field(default_factory=dict)

    def on_cpu(self) -> "LoadedModel":
        """The same with its network there."""
        return replace(self, model=on_cpu(self.model))

    def class_names(self) -> tuple[str, ...]:
        """The names of its outputs; their numbers where it has no names."""
        if self.classes is not None:
            return self.classes
        outputs = record(self.model, as_model(self.model, torch.zeros(1, *self.shape))).outputs
        if len(outputs) != 1 or len(outputs[0].shape) != 2:
            raise ModelError(
                f"model {self.spec!r}: is no classifier; it gives {len(outputs)} outputs, not one N x classes"
            )
        return tuple(map(str, range(outputs[0].shape[1])))

    def prepare(self, picture: Picture) -> tuple[Tensor, tuple[str, ...]]:
        """The picture as the network's input 1xCxHxW, normalised, and a sentence for each thing done to it.

        Raises: ModelError if the network does not take pictures; ImageError if this one cannot be brought to it.
        """
        if len(self.shape) != 3:
            shape = "x".join(map(str, self.shape))
            raise ModelError(f"model {self.spec!r}: takes {shape}, which is no picture; give --input CxHxW")
        channels, *size = self.shape
        fitted = to_channels(picture, channels)
        x, notes = torch.from_numpy(fitted.pixels), list(fitted.notes)
        if self.middle:
            x = _middle(x, size)
            notes.append(f"{picture.source}: its middle was cut out and brought to {size[0]}x{size[1]}")
        elif tuple(x.shape[:2]) != tuple(size):
            notes.append(f"{picture.source}: resized from {x.shape[0]}x{x.shape[1]} to {size[0]}x{size[1]}")
        return self.normalisation(resize(x, size=size)[None]), tuple(notes)

    def examples(self, images: Any = None, *, most: int = 64) -> Tensor:
        """Real pictures as the network takes them, NxCxHxW: the first of a set, or the packaged photographs.

        Raises: ModelError if the network does not take pictures.
        """
        if images is not None:
            return images.batch(torch.arange(min(most, len(images))))[0]
        return torch.cat([self.prepare(photograph(name))[0] for name in ("flower", "china")])

    def card(self, outputs: tuple[str, ...], *, data: str | None = None) -> Card:
        """What an exported file of it carries; `outputs` are the names of what it gives."""
        norm = self.normalisation
        facts = (self.task, self.classes, self.shape, norm.mean, norm.std, outputs)
        return Card(*facts, data=data or self.data, seed=self.seed, middle=self.middle, categories=self.categories)


def load_model(spec: str, *, shape: tuple[int, ...] | None = None) -> LoadedModel:
    """The model that `spec` names: a run folder, a file that `convscope export` wrote, or what `models.build` takes.

    shape: C, H, W of the input, needed only where the network does not say.
    Raises: ModelError or CheckpointError with the nearest name or the remedy.

    >>> load_model("LeNet5").shape
    (1, 32, 32)
    """
    if spec not in MODELS and spec and Path(spec).is_dir():
        run = open_run(spec)
        known = shape or run.shape
        told = {"task": run.config.task, "data": run.config.data, "seed": run.config.seed}
        told |= {"categories": run.categories}
        return LoadedModel(spec, run.model(), known, run.normalisation, run.classes, True, **told)
    if spec.endswith(ENDINGS):
        return _exported(spec)
    model, known = ready(spec, shape=shape)
    if spec.startswith("imagenet:"):
        settings = Normalisation(imagenet.MEAN, imagenet.STD)
        middle, names = shape is None, imagenet.class_names()
        return LoadedModel(spec, model, known, settings, names, trained=True, middle=middle)
    return LoadedModel(spec, model, known, _normalisation(model, spec))


def _exported(spec: str) -> LoadedModel:
    """An exported network: its card says how pictures enter it."""
    engine = open_engine(Path(spec))
    card = engine.card
    told = {"task": card.task, "data": card.data, "seed": card.seed, "categories": card.categories}
    return LoadedModel(
        spec, engine, card.shape, Normalisation(card.mean, card.std), card.classes, True, middle=card.middle, **told
    )


def _middle(x_HWC: Tensor, size: list[int]) -> Tensor:
    """The middle rectangle of the proportions of `size` that leaves an eighth of the shorter side out."""
    high, wide = x_HWC.shape[:2]
    scale = MIDDLE * min(high / size[0], wide / size[1])
    rows, columns = (max(1, round(scale * n)) for n in size)
    top, left = (high - rows) // 2, (wide - columns) // 2
    return x_HWC[top : top + rows, left : left + columns]


def _normalisation(model: nn.Module, spec: str) -> Normalisation:
    if spec in MODELS:
        return NORMALISATION
    if spec.startswith("timm:"):
        settings = getattr(model, "default_cfg", {})
        return Normalisation(tuple(settings["mean"]), tuple(settings["std"]))
    return IMAGENET if spec.startswith("torchvision:") else Normalisation()
