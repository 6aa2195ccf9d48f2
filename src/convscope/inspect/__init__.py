"""What a recording says of a network: shapes, parameters, MACs, memory, receptive fields."""

from convscope.inspect.advice import advice
from convscope.inspect.compare import Comparison, compare
from convscope.inspect.drawing import draw
from convscope.inspect.flow import Flow, flow
from convscope.inspect.limits import Limits
from convscope.inspect.memory import Memory, memory
from convscope.inspect.modules import ModuleCost, Rolled, rolled
from convscope.inspect.page import page
from convscope.inspect.receptive_field import Field, fields, receptive_field
from convscope.inspect.sizes import Sizes, least_input, sizes
from convscope.inspect.summary import Operator, Summary, Total, summarize

__all__ = [
    "Comparison",
    "Field",
    "Flow",
    "Limits",
    "Memory",
    "ModuleCost",
    "Operator",
    "Rolled",
    "Sizes",
    "Summary",
    "Total",
    "advice",
    "compare",
    "draw",
    "fields",
    "flow",
    "least_input",
    "memory",
    "page",
    "receptive_field",
    "rolled",
    "sizes",
    "summarize",
]
