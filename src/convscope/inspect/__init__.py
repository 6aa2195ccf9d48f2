"""What a recording says of a network: shapes, parameters, MACs, receptive fields."""

from convscope.inspect.alignment import Alignment, Misalignment, misaligned
from convscope.inspect.effective import EffectiveField, effective_field
from convscope.inspect.reach import Reach, reach
from convscope.inspect.receptive_field import Field, fields, receptive_field
from convscope.inspect.summary import Operator, Summary, Total, summarize

__all__ = [
    "Alignment",
    "EffectiveField",
    "Field",
    "Misalignment",
    "Operator",
    "Reach",
    "Summary",
    "Total",
    "effective_field",
    "fields",
    "misaligned",
    "reach",
    "receptive_field",
    "summarize",
]
