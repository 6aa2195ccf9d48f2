"""Class names and whole numbers as files write them."""

from collections.abc import Sequence

from convscope.data.findings import Findings
from convscope.data.tree import Tree

LISTS = ("classes.txt", "labels.txt", "obj.names", "_darknet.labels", "label_names.txt")


def listed(tree: Tree, found: Findings) -> tuple[str, ...]:
    """The classes in `classes.txt` (or `labels.txt`, `obj.names`), a line each; none if there is no such file."""
    for file in LISTS:
        if file in tree.files:
            names = tuple(line.strip() for line in tree.text(file).splitlines() if line.strip())
            check_names(names, file, found)
            return names
    return ()


def check_names(names: Sequence[str], where: str, found: Findings) -> None:
    """Refuse names that occur twice."""
    if twice := sorted({n for n in names if names.count(n) > 1}):
        found.add("class names", where, f"names {', '.join(twice)} twice", "give each class its own name")


def whole_number(text: str) -> int | None:
    """A whole number of at most nine digits, or None.

    >>> whole_number(" 12"), whole_number("-1"), whole_number("2.0"), whole_number("x")
    (12, -1, None, None)
    """
    digits = text.strip().removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) <= 9 else None
