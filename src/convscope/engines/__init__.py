"""Networks as files that other programs run, and such files as modules."""

from pathlib import Path

from convscope.engines.card import Card
from convscope.engines.exported import ExportedModel, exported_bytes
from convscope.engines.fused import BYTES, OWN, FusedModel, Program, fused_from, open_fused, peaks_of, program_of
from convscope.engines.int8 import Judge, OutOfTimeError, int8_bytes, int8_layers, onnx_int8_bytes
from convscope.engines.onnx import OnnxModel, onnx_bytes, onnx_with, open_onnx
from convscope.engines.openvino import OpenVinoModel, open_openvino, openvino_bytes, openvino_from
from convscope.engines.outputs import named_outputs, on_cpu, output_names, restored_outputs
from convscope.engines.quiet import quiet
from convscope.errors import ModelError, need

__all__ = [
    "BYTES",
    "ENDINGS",
    "OWN",
    "Card",
    "ExportedModel",
    "FusedModel",
    "Judge",
    "OnnxModel",
    "OpenVinoModel",
    "OutOfTimeError",
    "Program",
    "exported_bytes",
    "fused_from",
    "int8_bytes",
    "int8_layers",
    "named_outputs",
    "need",
    "on_cpu",
    "onnx_bytes",
    "onnx_int8_bytes",
    "onnx_with",
    "open_engine",
    "openvino_bytes",
    "openvino_from",
    "output_names",
    "peaks_of",
    "program_of",
    "quiet",
    "restored_outputs",
]

ENDINGS = (".onnx", ".xml", ".fused", ".pt2")

Engine = OnnxModel | OpenVinoModel | FusedModel | ExportedModel


def open_engine(path: Path, *, trusted: bool = False) -> Engine:
    """The network in an exported file, as a module that carries its card.

    `trusted`: the file was written by this process, so that an archive of torch.export may be unpickled.
    Raises: ModelError if there is no such file, if it is damaged or not convscope's, or must not be opened.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; check the path")
    if path.suffix == ".onnx":
        return open_onnx(path)
    if path.suffix == ".xml":
        return open_openvino(path)
    if path.suffix == ".fused":
        return open_fused(path)
    if trusted:
        return ExportedModel(path.read_bytes(), source=str(path))
    raise ModelError(
        f"{path}: reading a torch.export archive unpickles it, which can run code; give the .onnx, .xml or "
        ".fused file, or load it yourself with torch.export.load"
    )
