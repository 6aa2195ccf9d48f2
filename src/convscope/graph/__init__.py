"""The recording of a model, and what is known of each operator."""

from convscope.graph.recording import Op, Recording, Role, Value, call_of, record, replay
from convscope.graph.rules import RULES, Box, OpRule, reads, rule_of
from convscope.graph.traffic import is_in_place, is_view, moved_bytes

__all__ = [
    "RULES",
    "Box",
    "Op",
    "OpRule",
    "Recording",
    "Role",
    "Value",
    "call_of",
    "is_in_place",
    "is_view",
    "moved_bytes",
    "reads",
    "record",
    "replay",
    "rule_of",
]
