"""int8: networks with weights and activations in eight bits, by ranges that are found on real pictures: by NNCF for
OpenVINO, and by ONNX Runtime for itself."""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from convscope.engines.aside import aside
from convscope.engines.card import Card
from convscope.engines.onnx import INPUT, near_outputs, onnx_with
from convscope.engines.openvino import CompiledModel, core, saved
from convscope.engines.outputs import named_outputs
from convscope.engines.quiet import quiet
from convscope.errors import ModelError, first_line, need

RANKED = 50  # pictures whose outputs say which layers stand eight bits least


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """How good a form of the network is, 0 to 1, how much of it may be lost, and how long it may be made better.

    `beaten` names what is as fast as a form, "" if there is nothing; `seconds` is the most that layers are sought for.
    """

    score: Callable[[nn.Module], float]
    max_drop: float
    beaten: Callable[[nn.Module], str] = lambda form: ""
    seconds: float = 60.0


class OutOfTimeError(ModelError):
    """No choice of layers was found in the time that there is."""


def int8_bytes(
    onnx: bytes,
    card: Card,
    pictures_1CHW: Sequence[Tensor],
    *,
    last: bool = True,
    judge: Judge | None = None,
    standard: float = 1.0,
) -> tuple[bytes, bytes]:
    """An ONNX file as OpenVINO's two files, quantised to int8 after training; what NNCF cannot quantise stays float32,
    and so does what stands behind the last layers with weights. Unless `last`, so do these layers.

    With a judge, they do, and others go back to float32 until it allows what is left beside `standard`, the network's
    own score: those first whose quantisation changes the outputs most.
    Shapes: pictures_1CHW, each a batch of one, as the network takes them.
    Raises: InputError if OpenVINO or NNCF is not installed; ModelError if NNCF cannot quantise the network, and
    OutOfTimeError if the judge's seconds are over.
    Source: Jacob et al. 2018 (arXiv:1712.05877).
    """
    need("openvino", "nncf", extra="optimize")
    left = near_outputs(onnx, layers=judge is not None or not last)
    work = _Nncf(core().read_model(onnx), card, pictures_1CHW, left)
    if judge:
        work.until = time.monotonic() + judge.seconds
    try:
        with quiet():  # aside, as it loads plugins
            made = aside(lambda: work.nearer(judge, standard) if judge else work.quantised(), stop=work.stop)
    except OutOfTimeError:
        raise
    except Exception as error:
        raise _refused("NNCF", error) from error
    return saved(made, card)


@dataclass(slots=True, eq=False)
class _Nncf:
    """NNCF at work on a graph: what it asks for fails once the time is over, or somebody has called `stop`."""

    graph: Any
    card: Card
    pictures_1CHW: Sequence[Tensor]
    left: Sequence[str]
    until: float = math.inf

    def stop(self) -> None:
        self.until = 0.0

    def quantised(self) -> Any:
        import nncf

        return nncf.quantize(self.graph, self._data(self.pictures_1CHW), **self._settings())

    def nearer(self, judge: Judge, standard: float) -> Any:
        import nncf

        some = self.pictures_1CHW[:: -(-len(self.pictures_1CHW) // RANKED)]
        ranked = nncf.AdvancedAccuracyRestorerParameters(ranking_subset_size=max(1, len(some) - 1))
        return nncf.quantize_with_accuracy_control(
            self.graph,
            calibration_dataset=self._data(self.pictures_1CHW),
            validation_dataset=self._data(some),
            validation_fn=_Answers(self, judge, standard, len(some)),
            max_drop=judge.max_drop,
            advanced_accuracy_restorer_parameters=ranked,
            **self._settings(),
        )

    def check(self) -> None:
        if time.monotonic() > self.until:
            raise OutOfTimeError("int8: the time to choose layers is over; leave the network in float32")

    def _settings(self) -> dict[str, Any]:
        import nncf

        names = [name + part for name in self.left for part in ("", "/WithoutBiases")]  # as OpenVINO takes them apart
        left = nncf.IgnoredScope(names=names, validate=False)
        return {"subset_size": len(self.pictures_1CHW), "ignored_scope": left}

    def _data(self, pictures_1CHW: Sequence[Tensor]) -> Any:
        import nncf

        return nncf.Dataset(pictures_1CHW, self._array)

    def _array(self, x_1CHW: Tensor) -> Any:
        self.check()
        return x_1CHW.numpy()


@final
class _Answers:
    """What NNCF is told while it seeks layers: of all pictures the judge's score, and how near the outputs of each come
    to the network's; of fewer pictures, by which it ranks layers, how near they come.

    Otherwise it would ask for a score of each single picture, or rank the least helpful layers first (NNCF 3.4).
    """

    def __init__(self, work: _Nncf, judge: Judge, standard: float, count: int) -> None:
        self.work, self.judge, self.standard, self.count = work, judge, standard, count
        self.network: Any = None

    def __call__(self, compiled: Any, pictures_1CHW: Iterable[Tensor]) -> tuple[float, list[float]]:
        form = _Watched(CompiledModel(compiled, self.work.card), self.work.check)
        self.network = self.network or form  # it asks about the network first
        near = [-_unlikeness(self.network(x), form(x)) for x in pictures_1CHW]
        if len(near) < self.count:
            return sum(near) / len(near), near
        return (self.judge.score(form) if any(near) else self.standard), near


def _unlikeness(own: Any, other: Any) -> float:
    """The squared difference of outputs as a share of their squares, summed over outputs."""
    others = named_outputs(other)
    shares = [(t - others[n]).square().sum() / t.square().sum().clamp_min(1e-30) for n, t in named_outputs(own).items()]
    return float(torch.stack(shares).sum())


@final
class _Watched(nn.Module):
    """A form that looks before each batch whether it may go on."""

    def __init__(self, form: nn.Module, check: Callable[[], None]) -> None:
        super().__init__()
        self.form, self.check = form, check

    def forward(self, x_NCHW: Tensor) -> Any:
        self.check()
        return self.form(x_NCHW)


def int8_layers(graph: bytes, weights: bytes) -> int:
    """How many layers of OpenVINO's two files have weights in eight bits."""
    found = core().read_model(graph, weights).get_ops()
    types = ("i8", "u8")
    return sum(
        op.get_type_name() == "Constant" and op.get_element_type().get_type_name() in types and len(op.shape) > 1
        for op in found
    )


def onnx_int8_bytes(onnx: bytes, card: Card, pictures_1CHW: Sequence[Tensor]) -> bytes:
    """An ONNX file quantised to int8 by ONNX Runtime, a scale for each output channel; what stands behind the last
    layers with weights stays float32, and the card is kept.

    Raises: InputError if ONNX Runtime is not installed; ModelError if it cannot quantise the network.
    """
    need("onnx", "onnxruntime", extra="export")
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            given, to = Path(folder) / "given.onnx", Path(folder) / "int8.onnx"
            _quantised_onnx(onnx, given, to, pictures_1CHW)
            return onnx_with(to.read_bytes(), card)
    except Exception as error:
        raise _refused("ONNX Runtime", error) from error


def _refused(who: str, error: Exception) -> ModelError:
    said = f"{type(error).__name__}: {first_line(error)}"
    return ModelError(f"int8: {who} cannot quantise the network ({said}); leave it in float32")


def _quantised_onnx(content: bytes, given: Path, to: Path, pictures_1CHW: Sequence[Tensor]) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(quantization.CalibrationDataReader):
        left = iter([{INPUT: x.numpy()} for x in pictures_1CHW])

        def get_next(self) -> Any:
            return next(self.left, None)

    given.write_bytes(content)
    quant_pre_process(given, given, skip_symbolic_shape=True)
    quantization.quantize_static(
        given, to, Pictures(), per_channel=True, nodes_to_exclude=near_outputs(content, layers=False)
    )
