"""Session: one model, the pictures shown to it, and their recordings, within a bound of memory."""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from torch import Tensor

from convscope.data.digits import digits
from convscope.data.images import Picture
from convscope.data.named import PHOTOGRAPHS, open_picture
from convscope.errors import InputError
from convscope.explain.attribution import METHODS, Attribution, attribute, copies
from convscope.graph import Op, Recording, record
from convscope.inspect import EffectiveField, Summary, effective_field, summarize
from convscope.lab.steps import counting
from convscope.predict import Answer, Predictions, answer, predict
from convscope.runs.loaded import LoadedModel

MEMORY = 768 * 2**20  # bytes of activations that are held
MOST_PICTURES = 32
MOST_LOOKS = 64  # a small one is more Python than tensors, which `MEMORY` does not count
GIVEN = "given"


class MissingError(Exception):
    """There is no such thing; the message says what there is."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture as the model takes it: `pixels` CxHxW in 0..1 before, `x` 1xCxHxW after normalisation."""

    id: str
    name: str
    pixels: np.ndarray
    x: Tensor
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A recording of the model on a picture; `layers` is equal for pictures on which the same operators ran."""

    recording: Recording
    summary: Summary
    layers: str


class Session:
    """Answers for one model. Any number of threads may ask; the model itself runs in one at a time."""

    def __init__(self, loaded: LoadedModel, picture: Picture, name: str, *, memory: int = MEMORY) -> None:
        self.loaded, self._memory = loaded, memory
        self._running, self._held = Lock(), Lock()
        self._pictures: OrderedDict[str, Shown] = OrderedDict()
        self._looks: OrderedDict[tuple[Any, ...], Look] = OrderedDict()
        self._sizes: dict[tuple[Any, ...], int] = {}
        self._summaries: dict[str, Summary] = {}
        self._count = 0
        self.given = self._shown(GIVEN, name, picture)
        with counting(loaded.model, 0, modules=True) as steps:
            plan = record(loaded.model, self.given.x, keep=lambda op: False)
        self._calls = steps.done
        self._whole = _activation_bytes(plan) <= memory // 2
        self.classes = _classes(loaded, plan)

    def facts(self) -> dict[str, Any]:
        """What is known of the network; `can` says what else than the given picture can be asked for."""
        loaded = self.loaded
        return {
            "model": loaded.spec, "trained": loaded.trained, "shape": loaded.shape,
            "mean": loaded.normalisation.mean, "std": loaded.normalisation.std, "classes": self.classes,
            "given": self.given.name, "digits": self.num_digits, "answers": self._answers(),
            "methods": list(METHODS),
            "can": {"pictures": True, "effective": True, "values": True, "page": True, "why": bool(self._answers())},
        }  # fmt: skip

    @cached_property
    def num_digits(self) -> int:
        """Handwritten digits that can be asked for."""
        return len(digits().test)

    def add(self, picture: Picture, *, name: str) -> Shown:
        """Take in a picture that was sent; the oldest is forgotten beyond 32."""
        with self._held:
            self._count += 1
            key = f"own-{self._count}"
        shown = self._shown(key, name, picture)
        self._hold(shown)
        return shown

    def picture(self, key: str) -> Shown:
        """A picture by its id; never a path.

        Raises: MissingError.
        """
        if key == GIVEN:
            return self.given
        with self._held:
            found = self._pictures.get(key)
            if found is not None:
                self._pictures.move_to_end(key)
                return found
        digit = re.fullmatch(r"digits:([0-9]{1,5})", key)
        if key not in PHOTOGRAPHS and not (digit and int(digit[1]) < self.num_digits):
            raise MissingError(f"picture {key[:40]!r}: not held (any more); ask for given, digits:0 to digits:"
                               f"{self.num_digits - 1}, flower or china")  # fmt: skip
        shown = self._shown(key, key, open_picture(key))
        self._hold(shown)
        return shown

    def look(self, key: str, index: int | None = None) -> Look:
        """The recording of a picture, with the tensors of operator `index` (or none) in it.

        A model whose activations fit in memory is recorded once a picture; of a larger one, each layer by itself.
        """
        shown = self.picture(key)
        if self._whole:
            return self._remembered((shown.id,), shown, lambda op: True)
        if index is None:
            return self._remembered((shown.id, None), shown, lambda op: False)
        op = self.operator(self.look(key), index)
        return self._remembered(
            (shown.id, op.module, op.name), shown, lambda o: (o.module, o.name) == (op.module, op.name)
        )

    def operator(self, look: Look, index: int) -> Op:
        """An operator by its number.

        Raises: MissingError with the valid range.
        """
        if not 0 <= index < len(look.recording.ops):
            raise MissingError(f"layer {index}: there are layers 0 to {len(look.recording.ops) - 1}")
        return look.recording.ops[index]

    def effective(self, key: str, layer: str, place: tuple[int, ...]) -> EffectiveField:
        """How much each pixel of the picture moves one place of a layer.

        Raises: InputError if nothing does.
        """
        shown = self.picture(key)
        with self._running:
            return effective_field(self.loaded.model, shown.x, layer=layer, unit=place, samples=None)

    def predictions(self, key: str) -> Predictions | None:
        """The five likeliest classes; None where the model is no classifier."""
        if self.classes is None:
            return None
        shown = self.picture(key)
        with self._running:
            return predict(self.loaded.model, shown.x, classes=self.classes, names=[shown.name])

    def attribution(self, key: str, method: str, label: int | None = None) -> tuple[Answer, Attribution]:
        """What the network answers, or the class that is asked for, and which pixels of the picture bear on it.

        Raises: InputError if there is no such method or class, or the network answers nothing that can be asked about.
        """
        shown, names = self.picture(key), self._answers()
        if not names:
            raise InputError("attribution: the network gives no answer of a known kind; open a classifier or a run")
        if label is not None and label >= len(names):
            raise InputError(f"attribution: there is no class {label}; use 0 to {len(names) - 1}")
        model, target = self.loaded.model, None if label is None else names[label]
        with self._running, counting(model, copies(method, shown.x.shape)):
            told = answer(self.loaded, shown.x, target=target)
            layer = told.layer if "cam" in method else None
            return told, attribute(model, shown.x, method, target=told.target, layer=layer)

    def _answers(self) -> tuple[str, ...]:
        """The classes that an answer can be about."""
        known = self.loaded.classes if self.loaded.task in ("detect", "segment") else None  # of several, none alone
        return self.classes or known or ()

    def _remembered(self, key: tuple[Any, ...], shown: Shown, keep: Callable[[Op], bool]) -> Look:
        if (found := self._found(key)) is not None:
            return found
        with self._running:
            if (found := self._found(key)) is not None:  # another thread made it meanwhile
                return found
            with counting(self.loaded.model, self._calls, modules=True):
                recording = record(self.loaded.model, shown.x, keep=keep)
            look = self._look(recording)
            with self._held:
                self._looks[key], self._sizes[key] = look, _kept_bytes(recording)
                while len(self._looks) > 1 and (
                    len(self._looks) > MOST_LOOKS or sum(self._sizes.values()) > self._memory
                ):
                    oldest, _ = self._looks.popitem(last=False)
                    del self._sizes[oldest]
            return look

    def _found(self, key: tuple[Any, ...]) -> Look | None:
        """What is held of a picture; who asks for it waits for no network that runs."""
        with self._held:
            if key in self._looks:
                self._looks.move_to_end(key)
            return self._looks.get(key)

    def _look(self, recording: Recording) -> Look:
        layers = str(hash(tuple((op.target, op.module, *(v.shape for v in op.outputs)) for op in recording.ops)))
        if layers not in self._summaries:
            self._summaries = {layers: summarize(recording), **dict(list(self._summaries.items())[:3])}
        return Look(recording, self._summaries[layers], layers)

    def _shown(self, key: str, name: str, picture: Picture) -> Shown:
        x, notes = self.loaded.prepare(replace(picture, source=name))
        back = self.loaded.normalisation
        mean, std = (np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (back.mean, back.std))
        pixels = np.clip(x[0].numpy() * std + mean, 0, 1)
        return Shown(key, name, pixels, x, notes)

    def _hold(self, shown: Shown) -> None:
        with self._held:
            self._pictures[shown.id] = shown
            while len(self._pictures) > MOST_PICTURES:
                self._pictures.popitem(last=False)


def _classes(loaded: LoadedModel, plan: Recording) -> tuple[str, ...] | None:
    """The names of the classes, or their numbers; None where the output is no row of logits."""
    if len(plan.outputs) != 1 or len(plan.outputs[0].shape) != 2:
        return None
    return loaded.classes or tuple(map(str, range(plan.outputs[0].shape[1])))


def _activation_bytes(recording: Recording) -> int:
    return sum(prod(v.shape) * v.dtype.itemsize for op in recording.ops for v in op.outputs)


def _kept_bytes(recording: Recording) -> int:
    """Bytes of the tensors that the recording alone holds; parameters are the model's."""
    params = {v.id for v in recording.params}
    return sum(t.numel() * t.element_size() for i, t in recording.tensors.items() if i not in params)
