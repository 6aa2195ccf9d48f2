"""What is known to help: each candidate is made when its turn comes, and says in one sentence why it cannot be."""

import copy
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from convscope.engines import (
    Card,
    Judge,
    OnnxModel,
    OpenVinoModel,
    Program,
    int8_bytes,
    int8_layers,
    need,
    onnx_bytes,
    onnx_int8_bytes,
    onnx_with,
    openvino_from,
    program_of,
    quiet,
)
from convscope.errors import ConvscopeError, DataError, InputError, ModelError, first_line
from convscope.layers.fast.forms import ChannelsLast
from convscope.optimize.fusing import fused_of

CALIBRATION = 300  # pictures


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A form of the network that runs: its files with their bytes, or none if it lives in this process alone.

    `note` is what there is to say about it.
    """

    module: nn.Module
    files: Mapping[str, bytes] | None = None
    note: str = ""


@final
class Material:
    """What candidates are made of: the network, a batch of the wanted size, the card of its files, a training set and
    who judges forms on it."""

    def __init__(
        self, model: nn.Module, batch: Tensor, card: Card, *, training: Any = None, judge: Judge | None = None
    ) -> None:
        self.model, self.batch, self.card, self.training, self.judge = model, batch, card, training, judge
        self._changed: dict[str, Material | ConvscopeError] = {}

    def changed(self, name: str, make: Callable[[nn.Module, Tensor], nn.Module]) -> "Material":
        """The same with a changed network, made once.

        Raises: what `make` raises, each time the same.
        """
        if name not in self._changed:
            try:
                changed = make(self.model, self.batch)
                self._changed[name] = Material(changed, self.batch, self.card, training=self.training, judge=self.judge)
            except ConvscopeError as error:
                self._changed[name] = error
        found = self._changed[name]
        if isinstance(found, ConvscopeError):
            raise found
        return found

    @property
    def program(self) -> Program:
        """The network as a list of operators, which the fused forms are made of.

        Raises: ModelError, each time the same.
        """
        if isinstance(self._program, ModelError):
            raise self._program
        return self._program

    @cached_property
    def _program(self) -> Program | ModelError:
        try:
            return program_of(self.model, self.batch)
        except ModelError as error:
            return error

    @property
    def onnx(self) -> bytes:
        """The network as ONNX, which several candidates read.

        Raises: ModelError, each time the same.
        """
        if isinstance(self._onnx, Exception):
            raise self._onnx
        return self._onnx

    @cached_property
    def _onnx(self) -> bytes | InputError | ModelError:
        example = self.batch if len(self.batch) > 1 else torch.cat([self.batch, self.batch])
        try:
            return onnx_bytes(self.model, example, self.card)
        except (InputError, ModelError) as error:
            return error


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to run the network, and how it is made.

    Raises: what `make` raises is a ConvscopeError that says why the candidate cannot be had.
    """

    name: str
    make: Callable[[Material], Made]


def _channels_last(m: Material) -> Made:
    return Made(ChannelsLast(copy.deepcopy(m.model)))


def _fused(m: Material) -> Made:
    return _kept(m, m.card)


def _fused_bfloat16(m: Material) -> Made:
    return _kept(m, replace(m.card, precision="bf16"))


def _kept(m: Material, card: Card) -> Made:
    made = fused_of(m.program, m.model, m.batch, card)
    how = ", ".join(f"{n} {name}" for name, n in made.counts.items() if n)
    return Made(made, {"model.fused": made.content()}, note=how)


class InBatches(nn.Module):
    """A network that is given so many pictures at a time: the last batch is filled up, and cut again.

    It gives one tensor for pictures, as PyTorch's compiler makes one program a batch size.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, x: Tensor) -> Any:
        if len(x) == self.size:
            return self.model(x)
        filled = torch.cat([x, x[-1:].expand(-len(x) % self.size, -1, -1, -1)])
        found = [self.model(part) for part in filled.split(self.size)]
        if not isinstance(found[0], Tensor):
            raise ModelError("several outputs cannot be put together from batches")
        return torch.cat(found)[: len(x)]


def _compiled(m: Material) -> Made:
    return _through_compiler(copy.deepcopy(m.model), m.batch)


def _compiled_bfloat16(m: Material) -> Made:
    return _through_compiler(Autocast(copy.deepcopy(m.model)), m.batch)


def _through_compiler(model: nn.Module, batch: Tensor) -> Made:
    if not shutil.which(os.environ.get("CXX") or "g++"):
        raise InputError("torch.compile: needs a C++ compiler; install g++, or name one in CXX")
    try:
        with quiet():
            module: Any = torch.compile(model.eval(), dynamic=False, options={"freezing": True})
            module(batch)
    except Exception as error:
        raise ModelError(f"torch.compile cannot compile it ({first_line(error)})") from error
    return Made(InBatches(module, len(batch)))


def _onnx_runtime(m: Material) -> Made:
    need("onnx", "onnxscript", "onnxruntime", extra="export")
    return _opened_onnx(m.onnx)


def _onnx_runtime_alone(m: Material) -> Made:
    need("onnx", "onnxscript", "onnxruntime", extra="export")
    return _opened_onnx(onnx_with(m.onnx, replace(m.card, threads=1)))


def _opened_onnx(content: bytes) -> Made:
    return Made(OnnxModel(content, source="model.onnx"), {"model.onnx": content})


def _openvino(m: Material) -> Made:
    need("openvino", extra="export")
    return _opened(openvino_from(m.onnx, m.card))


def _openvino_bfloat16(m: Material) -> Made:
    need("openvino", extra="export")
    return _opened(openvino_from(m.onnx, replace(m.card, precision="bf16")))


def _calibration(m: Material) -> list[Tensor]:
    if m.training is None:
        raise DataError("there are no pictures to find the ranges on; give --data")
    at = torch.linspace(0, len(m.training) - 1, min(CALIBRATION, len(m.training))).long().unique()
    return [m.training.batch(i[None])[0] for i in at]


def _openvino_int8(m: Material) -> Made:
    need("openvino", "nncf", extra="optimize")
    pictures = _calibration(m)
    files = int8_bytes(m.onnx, m.card, pictures)
    made = _opened(files)
    if m.judge is None or m.judge.allows(made.module, m.model):
        return made
    nearer = int8_bytes(m.onnx, m.card, pictures, judge=m.judge)
    return replace(_opened(nearer), note=f"{int8_layers(*files) - int8_layers(*nearer)} layers back in float32")


def _onnx_int8(m: Material) -> Made:
    need("onnx", "onnxscript", "onnxruntime", extra="export")
    return _opened_onnx(onnx_int8_bytes(m.onnx, m.card, _calibration(m)))


def _opened(files: tuple[bytes, bytes]) -> Made:
    graph, weights = files
    return Made(OpenVinoModel(graph, weights, source="model.xml"), {"model.xml": graph, "model.bin": weights})


class Autocast(nn.Module):
    """PyTorch's own operators in bfloat16, on channels last, where PyTorch holds that to be safe."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(x.contiguous(memory_format=torch.channels_last))


def _autocast(m: Material) -> Made:
    return Made(Autocast(copy.deepcopy(m.model)))


LOSSLESS, NUMERIC, STRUCTURAL = "lossless", "numeric", "structural"
STAGES: Mapping[str, tuple[Candidate, ...]] = {
    LOSSLESS: (
        Candidate("PyTorch, channels last", _channels_last),
        Candidate("fused convolutions", _fused),
        Candidate("torch.compile, frozen", _compiled),
        Candidate("ONNX Runtime", _onnx_runtime),
        Candidate("ONNX Runtime, one thread", _onnx_runtime_alone),
        Candidate("OpenVINO", _openvino),
    ),
    NUMERIC: (
        Candidate("PyTorch, bfloat16", _autocast),
        Candidate("fused convolutions, bfloat16", _fused_bfloat16),
        Candidate("torch.compile, bfloat16", _compiled_bfloat16),
        Candidate("OpenVINO, bfloat16", _openvino_bfloat16),
        Candidate("OpenVINO, int8", _openvino_int8),
        Candidate("ONNX Runtime, int8", _onnx_int8),
    ),
}
