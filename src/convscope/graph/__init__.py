"""The recording of a model, and what is known of each operator."""

from convscope.graph.recorder import CHANGED
from convscope.graph.recording import record
from convscope.graph.replaying import call_of, replay
from convscope.graph.resized import NotDerived, resized
from convscope.graph.rules import RULES, Box, OpRule, reads, rule_of
from convscope.graph.traffic import is_in_place, is_view, moved_bytes, value_bytes
from convscope.graph.values import Op, Recording, Role, Value

__all__ = [
    "CHANGED",
    "RULES",
    "Box",
    "NotDerived",
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
    "resized",
    "rule_of",
    "value_bytes",
]
