"""The convolution family side by side: what each member makes, costs, sees and moves, and how long it takes."""

from convscope.family.counting import Family, Member, Times, family
from convscope.family.setting import MAPS, MEMBERS, Setting
from convscope.family.timing import clocked

__all__ = ["MAPS", "MEMBERS", "Family", "Member", "Setting", "Times", "clocked", "family"]
