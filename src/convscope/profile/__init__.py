"""Where the time of a network goes, beside the least that the machine allows: `profile`, `advise`, pictures."""

from convscope.profile.advice import Advice, advise, table_of
from convscope.profile.measure import Profile, TimedOp, profile
from convscope.profile.pictures import flame, roofline

__all__ = ["Advice", "Profile", "TimedOp", "advise", "flame", "profile", "roofline", "table_of"]
