"""int8: OpenVINO's network with weights and activations in eight bits, as NNCF finds their ranges on real pictures."""

from collections.abc import Sequence

from torch import Tensor

from convscope.engines.aside import aside
from convscope.engines.card import Card
from convscope.engines.need import need
from convscope.engines.openvino import core, saved
from convscope.engines.quiet import quiet
from convscope.errors import ModelError


def int8_bytes(onnx: bytes, card: Card, pictures_1CHW: Sequence[Tensor]) -> tuple[bytes, bytes]:
    """An ONNX file as OpenVINO's two files, quantised to int8 after training; what NNCF cannot quantise stays float32.

    Shapes: pictures_1CHW, each a batch of one, as the network takes them.
    Raises: InputError if OpenVINO or NNCF is not installed; ModelError if NNCF cannot quantise the network.
    Source: Jacob et al. 2018 (arXiv:1712.05877).
    """
    need("openvino", "nncf", extra="optimize")
    graph = core().read_model(onnx)
    try:
        with quiet():
            import nncf

            given = nncf.Dataset([x.numpy() for x in pictures_1CHW])
            quantised = aside(lambda: nncf.quantize(graph, given, subset_size=len(pictures_1CHW)))  # it loads plugins
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise ModelError(
            f"int8: NNCF cannot quantise the network ({type(error).__name__}: "
            f"{lines[0][:200] if lines else 'no message'}); leave it in float32"
        ) from error
    return saved(quantised, card)
