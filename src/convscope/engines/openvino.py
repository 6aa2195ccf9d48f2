"""OpenVINO: its own format, read from the ONNX file that PyTorch wrote, and run by it.

`import openvino` reports itself to its makers over the network where the package `openvino_telemetry`, which comes with
it, can be imported. Here it cannot: `openvino()` is the one place that imports it.
"""

import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.engines.aside import aside
from convscope.engines.card import KEY, Card
from convscope.engines.onnx import onnx_bytes
from convscope.engines.outputs import restored_outputs
from convscope.errors import ModelError, need


def openvino() -> Any:
    """The module, kept from reporting over the network.

    Raises: InputError if it is not installed.
    """
    need("openvino", extra="export")
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # importing it fails, and OpenVINO and NNCF go on without
    import openvino

    return openvino


@cache
def core() -> Any:
    """The one Core of the process, with its CPU plugin loaded."""

    def loaded() -> Any:
        made = openvino().Core()
        made.get_property("CPU", "FULL_DEVICE_NAME")
        return made

    return aside(loaded)


def openvino_bytes(model: nn.Module, example_NCHW: Tensor, card: Card) -> tuple[bytes, bytes]:
    """The network as OpenVINO's two files: the graph (.xml) with the card, and the weights (.bin).

    Raises: ModelError if it cannot be exported to ONNX, from which it is made.
    """
    openvino()  # a missing package is told before the work
    return openvino_from(onnx_bytes(model, example_NCHW, card), card)


def openvino_from(onnx: bytes, card: Card) -> tuple[bytes, bytes]:
    """An ONNX file as OpenVINO's two files, with another card."""
    return saved(core().read_model(onnx), card)


def saved(graph: Any, card: Card) -> tuple[bytes, bytes]:
    """OpenVINO's network as its two files, with the card."""
    graph.set_rt_info(card.text(), [KEY])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino().save_model(graph, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


class CompiledModel(nn.Module):
    """A network as OpenVINO compiled it, as a module: float32 pictures NxCxHxW in, what the network gave out."""

    def __init__(self, compiled: Any, card: Card) -> None:
        super().__init__()
        self.compiled, self.card = compiled, card

    def forward(self, x_NCHW: Tensor) -> Any:
        found = self.compiled(np.ascontiguousarray(x_NCHW.detach().cpu().numpy()))
        tensors = [torch.from_numpy(np.array(found[i])) for i in range(len(self.card.outputs))]
        return restored_outputs(tensors, self.card.outputs)


class OpenVinoModel(CompiledModel):
    """OpenVINO's two files as a module.

    The card says what OpenVINO computes in, with "f32" it gives PyTorch's numbers, and with how many threads.
    """

    def __init__(self, graph: bytes, weights: bytes, *, source: str) -> None:
        read = core().read_model
        try:
            network = read(graph, weights)
            text = network.get_rt_info([KEY]).astype(str) if network.has_rt_info([KEY]) else None
        except Exception as error:
            raise ModelError(
                f"{source}: is no OpenVINO network ({str(error).strip().splitlines()[-1][:200]}); export it again"
            ) from None
        card = Card.read(text, source=source)
        if card.precision == "int8":  # of fused networks alone: OpenVINO's int8 stands in the graph
            raise ModelError(f"{source}: its card is damaged (int8 is no precision of OpenVINO's); export it again")
        threads = card.threads or torch.get_num_threads()
        hints = {"INFERENCE_PRECISION_HINT": card.precision, "INFERENCE_NUM_THREADS": threads}
        super().__init__(core().compile_model(network, "CPU", hints), card)


def open_openvino(path: Path) -> OpenVinoModel:
    """The network in an OpenVINO .xml file and the .bin file beside it.

    Raises: ModelError if one is missing or damaged, or it was not exported by convscope.
    """
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(f"{weights}: is missing; OpenVINO's .xml needs the .bin file beside it")
    return OpenVinoModel(path.read_bytes(), weights.read_bytes(), source=str(path))
