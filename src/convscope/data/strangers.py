"""Files that are no pictures, told by how they begin."""

import re
from codecs import getincrementaldecoder
from collections.abc import Sequence

# Pattern at its beginning -> (what it is, what to do).
LOOKS_LIKE: tuple[tuple[bytes, str, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull` to fetch the picture itself"),
    (rb"(?is)\s*<(?:!doctype\s+)?html", "a web page", "download the picture itself"),
    (rb"(?is)\s*(?:<\?xml.*?)?(?:<!--.*?-->\s*|<!doctype svg.*?>\s*)*<svg", "an SVG drawing", "export it as PNG"),
    (rb"(?:\xc5\xd0\xd3\xc6|%!PS)", "a PostScript drawing", "export it as PNG"),
    (rb"%PDF", "a PDF document", "export the page as PNG"),
    (rb"8BPS", "a Photoshop document", "export it as PNG"),
    (rb"(?s)....ftyp(?:hei|hev|mif1|msf1)", "a HEIF photograph", "convert it to JPEG or PNG"),
    (rb"(?s)....ftyp", "a video", "save one frame as PNG"),
    (rb"\x93NUMPY", "a NumPy array", "save it as PNG"),
    (rb"PK\x03\x04", "a ZIP archive", "unpack it and give one picture"),
)


def what_it_is(head: bytes, formats: Sequence[str]) -> str:
    """What a file seems to be that is none of the formats, by its beginning, and what to do."""
    for pattern, what, remedy in LOOKS_LIKE:
        if re.match(pattern, head.removeprefix(b"\xef\xbb\xbf")):
            return f"looks like {what}, not a picture; {remedy}"
    known = "give a " + ", ".join(formats[:-1]) + f" or {formats[-1]} file"
    if _is_text(head):
        return f"looks like text, not a picture; {known}"
    return f"is no picture of a known format, or its header is damaged; {known}"


def _is_text(head: bytes) -> bool:
    """UTF-8 without control characters; the last character may be cut by the end of `head`."""
    try:
        text = getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\r\n\f" for c in text)
