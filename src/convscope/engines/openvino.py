"""OpenVINO: its own format, read from the ONNX file that PyTorch wrote, and run by it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.engines.card import KEY, Card
from convscope.engines.need import need
from convscope.engines.onnx import onnx_bytes
from convscope.engines.outputs import restored_outputs
from convscope.errors import ModelError


def openvino_bytes(model: nn.Module, example_NCHW: Tensor, card: Card) -> tuple[bytes, bytes]:
    """The network as OpenVINO's two files: the graph (.xml) with the card, and the weights (.bin).

    Raises: ModelError if it cannot be exported to ONNX, from which it is made.
    """
    need("openvino", extra="export")
    import openvino

    graph = openvino.Core().read_model(onnx_bytes(model, example_NCHW, card))
    graph.set_rt_info(card.text(), [KEY])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(graph, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


class OpenVinoModel(nn.Module):
    """OpenVINO's two files as a module: float32 pictures NxCxHxW in, what the network gave out.

    `precision` is the dtype that OpenVINO computes in: "f32" gives PyTorch's numbers.
    """

    def __init__(self, graph: bytes, weights: bytes, *, source: str, precision: str = "f32") -> None:
        super().__init__()
        need("openvino", extra="export")
        import openvino

        core = openvino.Core()
        try:
            network = core.read_model(graph, weights)
            text = network.get_rt_info([KEY]).astype(str) if network.has_rt_info([KEY]) else None
        except Exception as error:
            raise ModelError(
                f"{source}: is no OpenVINO network ({str(error).strip().splitlines()[-1][:200]})"
            ) from None
        self.card = Card.read(text, source=source)
        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self.compiled: Any = core.compile_model(network, "CPU", hints)

    def forward(self, x_NCHW: Tensor) -> Any:
        found = self.compiled(np.ascontiguousarray(x_NCHW.detach().cpu().numpy()))
        tensors = [torch.from_numpy(np.array(found[i])) for i in range(len(self.card.outputs))]
        return restored_outputs(tensors, self.card.outputs)


def open_openvino(path: Path) -> OpenVinoModel:
    """The network in an OpenVINO .xml file and the .bin file beside it.

    Raises: ModelError if one is missing or damaged, or it was not exported by convscope.
    """
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ModelError(f"{weights}: is missing; OpenVINO's .xml needs the .bin file beside it")
    return OpenVinoModel(path.read_bytes(), weights.read_bytes(), source=str(path))
