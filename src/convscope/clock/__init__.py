"""How long things take on this machine, and how fast it could be: `measure`, `compare`, `limits`."""

from convscope.clock.limits import Limits, limits
from convscope.clock.timing import Timing, compare, measure

__all__ = ["Limits", "Timing", "compare", "limits", "measure"]
