"""A small convolution worked by hand: its steps as numbers, the ways to compute it, and moving pictures of it."""

from convscope.steps.case import Case
from convscope.steps.movie import save_movie
from convscope.steps.still import save_value
from convscope.steps.storyboard import Frame, Storyboard, frames
from convscope.steps.way import Stage, Way
from convscope.steps.ways import WAYS, Comparison, compare, compute, ways_of
from convscope.steps.wish import Wish

__all__ = [
    "WAYS",
    "Case",
    "Comparison",
    "Frame",
    "Stage",
    "Storyboard",
    "Way",
    "Wish",
    "compare",
    "compute",
    "frames",
    "save_movie",
    "save_value",
    "ways_of",
]
