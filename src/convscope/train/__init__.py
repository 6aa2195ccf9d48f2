"""Training that can be stopped at any moment and resumed bit for bit. The only room that knows the trainer library."""

from convscope.train.finding import RateSearch, find_lr
from convscope.train.loop import train
from convscope.train.parts import learning_rate
from convscope.train.stopping import Interrupted

__all__ = ["Interrupted", "RateSearch", "find_lr", "learning_rate", "train"]
