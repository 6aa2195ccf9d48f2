"""The one typeface of what is drawn: DejaVu Sans has the true minus sign and most alphabets (see LICENSE_DEJAVU)."""

from functools import cache
from pathlib import Path

from PIL import ImageFont

REGULAR, BOLD = (Path(__file__).parent / f"DejaVuSans{more}.ttf" for more in ("", "-Bold"))


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of `size` px.

    >>> font(12).getname()
    ('DejaVu Sans', 'Book')
    """
    return ImageFont.truetype(BOLD if bold else REGULAR, size)
