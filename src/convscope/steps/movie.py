"""A storyboard as a file that moves: SVG, GIF or animated PNG."""

from pathlib import Path

from convscope.files import known_ending, write_whole
from convscope.steps.raster import animation
from convscope.steps.scene import lay_out
from convscope.steps.storyboard import Storyboard
from convscope.steps.svg import write_svg

KINDS = (".svg", ".gif", ".png")


def check_kind(path: Path | str) -> str:
    """The ending of a file that can be written.

    Raises: InputError if it is another one.

    >>> check_kind("conv.SVG")
    '.svg'
    """
    return known_ending(path, KINDS, what="the moving picture is")


def save_movie(board: Storyboard, path: Path | str) -> Path:
    """Write the animation, whole or not at all: .svg, .gif or .png (an animated PNG).

    Raises: InputError if the ending is another one, or the storyboard is too large to be drawn; RunError if the
    disk refuses.

    >>> import tempfile
    >>> import numpy as np
    >>> from convscope.steps import Case, frames
    >>> board = frames(Case(np.ones((1, 3, 3)), np.ones((1, 1, 2, 2))))
    >>> save_movie(board, Path(tempfile.mkdtemp()) / "conv.svg").name
    'conv.svg'
    """
    ending, scene = check_kind(path), lay_out(board)
    return write_whole(path, write_svg(scene) if ending == ".svg" else animation(scene, ending[1:].upper()))
