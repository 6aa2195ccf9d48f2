"""Networks of PyTorch with what stands around each layer fused into it, and the file that keeps one."""

from convscope.engines.fused.calls import BYTES
from convscope.engines.fused.eight import peaks_of
from convscope.engines.fused.fusing import OWN
from convscope.engines.fused.model import FusedModel, fused_from, open_fused
from convscope.engines.fused.program import Program, program_of

__all__ = ["BYTES", "OWN", "FusedModel", "Program", "fused_from", "open_fused", "peaks_of", "program_of"]
