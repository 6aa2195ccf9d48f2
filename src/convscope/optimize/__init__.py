"""Faster networks on this machine, by measurement: `optimize`, `load`, `fuse`, and the picture `pareto`."""

from convscope.optimize.candidates import STAGES, Candidate, Made, Material
from convscope.optimize.fusing import fuse
from convscope.optimize.measure import load, optimize
from convscope.optimize.result import Optimised, Row, chosen

__all__ = ["STAGES", "Candidate", "Made", "Material", "Optimised", "Row", "chosen", "fuse", "load", "optimize"]
