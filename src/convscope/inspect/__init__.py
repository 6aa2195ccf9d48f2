"""What a recording says of a network: shapes, parameters, MACs, memory, receptive fields."""

from convscope.inspect.advice import advice
from convscope.inspect.alignment import Alignment, Misalignment, misaligned
from convscope.inspect.budget import Budget
from convscope.inspect.compare import Comparison, compare
from convscope.inspect.dead import DeadChannels, dead_channels
from convscope.inspect.drawing import draw
from convscope.inspect.effective import EffectiveField, effective_field
from convscope.inspect.flow import Flow, flow
from convscope.inspect.memory import Memory, memory
from convscope.inspect.modules import ModuleCost, Rolled, rolled
from convscope.inspect.page import page
from convscope.inspect.reach import Reach, reach
from convscope.inspect.receptive_field import Field, fields, receptive_field
from convscope.inspect.sizes import Sizes, least_input, sizes
from convscope.inspect.summary import Operator, Summary, Total, summarize

__all__ = [
    "Alignment",
    "Budget",
    "Comparison",
    "DeadChannels",
    "EffectiveField",
    "Field",
    "Flow",
    "Memory",
    "Misalignment",
    "ModuleCost",
    "Operator",
    "Reach",
    "Rolled",
    "Sizes",
    "Summary",
    "Total",
    "advice",
    "compare",
    "dead_channels",
    "draw",
    "effective_field",
    "fields",
    "flow",
    "least_input",
    "memory",
    "misaligned",
    "page",
    "reach",
    "receptive_field",
    "rolled",
    "sizes",
    "summarize",
]
