"""The recording of a model, and what is known of each operator."""

from convscope.graph.recording import record
from convscope.graph.replaying import replay
from convscope.graph.rules import RULES, Box, OpRule, reads, rule_of
from convscope.graph.values import Op, Recording, Role, Value

__all__ = ["RULES", "Box", "Op", "OpRule", "Recording", "Role", "Value", "reads", "record", "replay", "rule_of"]
