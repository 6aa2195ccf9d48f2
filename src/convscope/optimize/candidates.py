"""What is known to help: each candidate is made when its turn comes, and says in one sentence why it cannot be."""

import copy
import os
import shutil
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, final

import torch
from torch import Tensor, nn

from convscope.engines import (
    BYTES,
    Card,
    FusedModel,
    Judge,
    OnnxModel,
    OpenVinoModel,
    OutOfTimeError,
    Program,
    int8_bytes,
    int8_layers,
    named_outputs,
    need,
    onnx_bytes,
    onnx_int8_bytes,
    onnx_with,
    openvino_from,
    program_of,
    quiet,
    restored_outputs,
)
from convscope.errors import DataError, InputError, ModelError, first_line
from convscope.layers.fast.compiled import kernels
from convscope.layers.fast.forms import ChannelsLast
from convscope.optimize.fusing import fused_of

CALIBRATION = 300  # pictures


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A form of the network that runs: its files with their bytes, or none if it lives in this process alone.

    `note` is what there is to say about it, `excuse` why it comes no nearer to the network, if it should be too far.
    """

    module: nn.Module
    files: Mapping[str, bytes] | None = None
    note: str = ""
    excuse: str = ""


@final
class Material:
    """What candidates are made of: the network, a batch of the wanted size, the card of its files, a training set and
    who judges forms on it."""

    def __init__(
        self, model: nn.Module, batch: Tensor, card: Card, *, training: Any = None, judge: Judge | None = None
    ) -> None:
        self.model, self.batch, self.card, self.training, self.judge = model, batch, card, training, judge

    def changed(self, model: nn.Module, *, judged: bool = True) -> "Material":
        """The same with another network."""
        return Material(model, self.batch, self.card, training=self.training, judge=self.judge if judged else None)

    def allows(self, form: nn.Module) -> bool:
        """Whether the judge takes it for the network; without a judge everything is allowed."""
        return self.judge is None or self.standard - self.judge.score(form) <= self.judge.max_drop

    @cached_property
    def standard(self) -> float:
        """The score of the network itself."""
        return self.judge.score(self.model) if self.judge else 1.0

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
    return _kept(fused_of(m.program, m.model, m.batch, m.card))


def _fused_bfloat16(m: Material) -> Made:
    return _kept(fused_of(m.program, m.model, m.batch, replace(m.card, precision="bf16")))


def _fused_int8(m: Material) -> Made:
    found = kernels()
    if found is None or not found.half:
        raise ModelError("int8: needs a processor that multiplies tiles of bytes (AMX), and a C++ compiler")
    pictures = torch.cat(_calibration(m))
    made = fused_of(m.program, m.model, m.batch, replace(m.card, precision="int8"), pictures=pictures)
    if not made.counts.get(BYTES):
        raise ModelError("int8: no layer reads bytes, as what they read may be negative")
    return _kept(made)


def _kept(made: FusedModel) -> Made:
    how = ", ".join(f"{n} {name}" for name, n in made.counts.items() if n)
    return Made(made, {"model.fused": made.content()}, note=how)


class InBatches(nn.Module):
    """A network that is given so many pictures at a time, as PyTorch's compiler makes one program a batch size.

    The last batch is filled up, and cut again. `each` names the outputs that hold something for each picture.
    """

    def __init__(self, model: nn.Module, size: int, *, each: Set[str]) -> None:
        super().__init__()
        self.model, self.size, self.each = model, size, each

    def forward(self, x: Tensor) -> Any:
        if len(x) == self.size:
            return self.model(x)
        filled = torch.cat([x, x[-1:].expand(-len(x) % self.size, -1, -1, -1)])
        parts = [named_outputs(self.model(part)) for part in filled.split(self.size)]
        joined = {n: torch.cat([p[n] for p in parts])[: len(x)] if n in self.each else t for n, t in parts[0].items()}
        return restored_outputs([*joined.values()], [*joined])


def each_picture(model: nn.Module, batch: Tensor) -> set[str]:
    """The outputs that are longer for two pictures than for one.

    >>> each_picture(nn.Flatten(), torch.zeros(1, 3, 8, 8))
    {'output'}
    """
    one, two = (named_outputs(model(torch.cat([batch[:1]] * n))) for n in (1, 2))
    return {name for name, tensor in one.items() if tensor.shape[:1] != two[name].shape[:1]}


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
    return Made(InBatches(module, len(batch), each=each_picture(model, batch)))


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
    """In eight bits as far as the judge allows: the last layers are the first to go back to float32, then what NNCF
    finds; nothing more is tried once another file is as fast."""
    need("openvino", "nncf", extra="optimize")
    judge, pictures = m.judge, _calibration(m)
    files = int8_bytes(m.onnx, m.card, pictures)
    made, layers = _opened(files), int8_layers(*files)
    if judge is None or m.allows(made.module):
        return made
    quantise = partial(int8_bytes, m.onnx, m.card, pictures)
    for nearer in (partial(quantise, last=False), partial(quantise, judge=judge, standard=m.standard)):
        if beaten := judge.beaten(made.module):
            return replace(made, excuse=f"as {beaten} is as fast, no more layers go back to float32")
        try:
            files = nearer()
        except OutOfTimeError:
            return replace(made, excuse=f"no choice of layers for float32 was found in {judge.seconds:g} s")
        made = replace(_opened(files), note=f"{layers - int8_layers(*files)} layers back in float32")
        if m.allows(made.module):
            break
    return made


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
        Candidate("fused convolutions, int8", _fused_int8),
        Candidate("torch.compile, bfloat16", _compiled_bfloat16),
        Candidate("OpenVINO, bfloat16", _openvino_bfloat16),
        Candidate("OpenVINO, int8", _openvino_int8),
        Candidate("ONNX Runtime, int8", _onnx_int8),
    ),
}
