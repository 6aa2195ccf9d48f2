"""XML read safely into plain nodes that know their line: no document types, no entities, nothing fetched."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from convscope.errors import DataError

MAX_BYTES = 16 * 2**20


@dataclass(slots=True)
class Node:
    """An element: its name, the line it begins at, its text and what is in it."""

    name: str
    line: int = 0
    text: str = ""
    inside: list["Node"] = field(default_factory=list)

    def all(self, name: str) -> Iterator["Node"]:
        """The elements of a name right inside."""
        return (n for n in self.inside if n.name == name)

    def word(self, *path: str) -> str:
        """The text at the end of a path of names; empty if there is none."""
        node: Node | None = self
        for name in path:
            node = next(node.all(name), None) if node else None
        return node.text.strip() if node else ""


def read_xml(content: bytes, *, source: str) -> Node:
    """The outermost element.

    Raises: DataError if it is no XML, declares a document type or entities, or has more than 16 MiB.

    >>> read_xml(b"<a><b>7</b></a>", source="a.xml").word("b")
    '7'
    """
    if len(content) > MAX_BYTES:
        raise DataError(f"{source}: has {len(content):,} bytes; an annotation has {MAX_BYTES:,} at most")
    parser, top = expat.ParserCreate(), Node("")
    stack = [top]

    def begin(name: str, attributes: dict[str, str]) -> None:
        node = Node(name, parser.CurrentLineNumber)
        stack[-1].inside.append(node)
        stack.append(node)

    def refuse(*_: object) -> NoReturn:
        raise DataError(f"{source}:{parser.CurrentLineNumber}: declares a document type or an entity; remove it")

    def note(text: str) -> None:
        stack[-1].text += text

    parser.StartElementHandler, parser.EndElementHandler = begin, lambda name: stack.pop()
    parser.CharacterDataHandler, parser.buffer_text = note, True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise DataError(f"{source}:{error.lineno}: is no XML ({error}); write the file anew") from None
    except (ValueError, LookupError) as error:  # an encoding that there is not
        raise DataError(f"{source}: is no XML ({error}); save it as UTF-8") from None
    return top.inside[0]
