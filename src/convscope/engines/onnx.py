"""ONNX: written by PyTorch's exporter, run by ONNX Runtime."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.engines.card import KEY, Card
from convscope.engines.outputs import Flat, restored_outputs
from convscope.errors import ModelError, need

INPUT = "input"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def onnx_bytes(model: nn.Module, example_NCHW: Tensor, card: Card) -> bytes:
    """The network as an ONNX file: any number of pictures at a time, and the card in its metadata.

    Raises: ModelError if PyTorch's exporter cannot write it, with its own words.
    """
    need("onnx", "onnxscript", extra="export")
    batch = {0: torch.export.Dim("batch")}
    try:
        with _quiet():
            program = torch.onnx.export(
                Flat(model).eval(), (example_NCHW,), dynamo=True, verbose=False, input_names=[INPUT],
                output_names=list(card.outputs), dynamic_shapes=(batch,),
            )  # fmt: skip
    except Exception as error:
        raise ModelError(f"export: the network cannot be exported to ONNX ({_brief(error)}); try .pt2") from error
    if program is None:
        raise ModelError("export: the network cannot be exported to ONNX (the exporter gave nothing); try .pt2")
    proto = program.model_proto
    proto.metadata_props.add(key=KEY, value=card.text())
    return proto.SerializeToString()


def onnx_with(content: bytes, card: Card) -> bytes:
    """An ONNX file with another card."""
    import onnx

    proto = onnx.load_model_from_string(content)
    onnx.helper.set_model_props(proto, {KEY: card.text()})
    return proto.SerializeToString()


def near_outputs(content: bytes, *, layers: bool) -> list[str]:
    """The names of the operators behind the last layers with weights: what makes boxes of distances, say.

    With `layers`, those layers are named as well.
    """
    import onnx

    graph = onnx.load_model_from_string(content).graph
    maker = {output: node for node in graph.node for output in node.output}
    todo, found = [o.name for o in graph.output], dict[str, bool]()  # and whether it has weights
    while todo:
        node = maker.get(todo.pop())
        if node is not None and node.name not in found:
            found[node.name] = node.op_type in WEIGHTED
            todo += [] if found[node.name] else node.input
    return [name for name, weighted in found.items() if layers or not weighted]


class OnnxModel(nn.Module):
    """An ONNX file as a module: float32 pictures NxCxHxW in, what the network gave out."""

    def __init__(self, content: bytes, *, source: str) -> None:
        super().__init__()
        need("onnx", "onnxruntime", extra="export")
        self.card = _card(content, source)
        self.session = _session(content, source, threads=self.card.threads)
        self.input = self.session.get_inputs()[0].name

    def forward(self, x_NCHW: Tensor) -> Any:
        given = {self.input: np.ascontiguousarray(x_NCHW.detach().cpu().numpy())}
        found = [torch.from_numpy(np.asarray(a)) for a in self.session.run(list(self.card.outputs), given)]
        return restored_outputs(found, self.card.outputs)


def open_onnx(path: Path) -> OnnxModel:
    """The network in an ONNX file.

    Raises: ModelError if it is no ONNX file, holds weights elsewhere, or was not exported by convscope.
    """
    return OnnxModel(path.read_bytes(), source=str(path))


def _card(content: bytes, source: str) -> Card:
    import onnx

    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:
        raise ModelError(f"{source}: is no ONNX file ({_brief(error)}); export it again") from None
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer):
        raise ModelError(f"{source}: keeps weights in other files, which are not read; export it into one file")
    found = {p.key: p.value for p in proto.metadata_props}
    return Card.read(found.get(KEY), source=source)


def _session(content: bytes, source: str, *, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it slows whatever runs next to it
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{source}: ONNX Runtime cannot run it ({_brief(error)}); export it again") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its own developers."""
    log = logging.getLogger("onnx_ir")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _brief(error: Exception) -> str:
    """Its first line, of what stands above the exporter's own coloured advice."""
    plain = re.sub(r"\x1b\[[0-9;]*m|This is step .*", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"
