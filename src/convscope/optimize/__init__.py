"""Faster networks on this machine, by measurement: `optimize`, `fuse`, and the picture `pareto`."""

from convscope.optimize.candidates import STAGES, Candidate, Made, Material
from convscope.optimize.fusing import Fused, fold, fuse
from convscope.optimize.measure import optimize
from convscope.optimize.result import Optimised, Row, chosen

__all__ = ["STAGES", "Candidate", "Fused", "Made", "Material", "Optimised", "Row", "chosen", "fold", "fuse", "optimize"]
