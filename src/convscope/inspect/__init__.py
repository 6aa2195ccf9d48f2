"""What a recording says of a network: shapes, parameters, MACs, receptive fields."""

from convscope.inspect.receptive_field import Field, fields, receptive_field
from convscope.inspect.summary import Operator, Summary, Total, summarize

__all__ = ["Field", "Operator", "Summary", "Total", "fields", "receptive_field", "summarize"]
