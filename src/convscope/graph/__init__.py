"""The recording of a model, and what is known of each operator."""

from convscope.graph.recording import Op, Recording, Role, Value, record, replay
from convscope.graph.rules import RULES, Box, OpRule, reads, rule_of

__all__ = ["RULES", "Box", "Op", "OpRule", "Recording", "Role", "Value", "reads", "record", "replay", "rule_of"]
