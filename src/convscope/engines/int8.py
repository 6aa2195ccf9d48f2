"""int8: networks with weights and activations in eight bits, by ranges that are found on real pictures: by NNCF for
OpenVINO, and by ONNX Runtime for itself."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convscope.engines.aside import aside
from convscope.engines.card import Card
from convscope.engines.onnx import INPUT, onnx_with
from convscope.engines.openvino import CompiledModel, core, saved
from convscope.engines.quiet import quiet
from convscope.errors import ModelError, first_line, need


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """How good a form of the network is, 0 to 1, and how much of it may be lost."""

    score: Callable[[nn.Module], float]
    max_drop: float

    def allows(self, made: nn.Module, original: nn.Module) -> bool:
        return self.score(original) - self.score(made) <= self.max_drop


def int8_bytes(
    onnx: bytes, card: Card, pictures_1CHW: Sequence[Tensor], *, judge: Judge | None = None
) -> tuple[bytes, bytes]:
    """An ONNX file as OpenVINO's two files, quantised to int8 after training; what NNCF cannot quantise stays float32.

    With a judge, layers go back to float32 until it allows what is left, those first whose quantisation costs most.
    Shapes: pictures_1CHW, each a batch of one, as the network takes them.
    Raises: InputError if OpenVINO or NNCF is not installed; ModelError if NNCF cannot quantise the network.
    Source: Jacob et al. 2018 (arXiv:1712.05877).
    """
    need("openvino", "nncf", extra="optimize")
    graph = core().read_model(onnx)
    try:
        with quiet():
            quantised = aside(lambda: _quantised(graph, card, pictures_1CHW, judge))  # it loads plugins
    except Exception as error:
        raise _refused("NNCF", error) from error
    return saved(quantised, card)


def _quantised(graph: Any, card: Card, pictures_1CHW: Sequence[Tensor], judge: Judge | None) -> Any:
    import nncf

    given = nncf.Dataset([x.numpy() for x in pictures_1CHW])
    if judge is None:
        return nncf.quantize(graph, given, subset_size=len(pictures_1CHW))
    return nncf.quantize_with_accuracy_control(
        graph,
        calibration_dataset=given,
        validation_dataset=given,
        validation_fn=lambda compiled, _: (judge.score(CompiledModel(compiled, card)), None),
        max_drop=judge.max_drop,
        subset_size=len(pictures_1CHW),
    )


def int8_layers(graph: bytes, weights: bytes) -> int:
    """How many layers of OpenVINO's two files have weights in eight bits."""
    found = core().read_model(graph, weights).get_ops()
    types = ("i8", "u8")
    return sum(
        op.get_type_name() == "Constant" and op.get_element_type().get_type_name() in types and len(op.shape) > 1
        for op in found
    )


def onnx_int8_bytes(onnx: bytes, card: Card, pictures_1CHW: Sequence[Tensor]) -> bytes:
    """An ONNX file quantised to int8 by ONNX Runtime, a scale for each output channel; the card is kept.

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
    quantization.quantize_static(given, to, Pictures(), per_channel=True)
