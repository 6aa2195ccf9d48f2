"""The convolution family side by side: what each member makes, costs, sees and moves, and how long it takes."""

from convscope.family.clocked import clocked
from convscope.family.counting import Family, Member, Times, family
from convscope.family.setting import MAPS, MEMBERS, Setting

__all__ = ["MAPS", "MEMBERS", "Family", "Member", "Setting", "Times", "clocked", "family"]
