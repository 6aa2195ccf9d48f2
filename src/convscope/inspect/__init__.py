"""What a recording says of a network: shapes, parameters, MACs, receptive fields."""

from convscope.inspect.reach import Reach, reach
from convscope.inspect.receptive_field import Field, fields, receptive_field
from convscope.inspect.summary import Operator, Summary, Total, summarize

__all__ = [
    "Field",
    "Operator",
    "Reach",
    "Summary",
    "Total",
    "fields",
    "reach",
    "receptive_field",
    "summarize",
]
