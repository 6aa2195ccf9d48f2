"""For the API page: the examples in docstrings become code blocks, and each of their sections a paragraph."""

import re
from typing import Any

from griffe import Extension, Object


class Docstrings(Extension):
    """Rewrites every docstring before it is rendered; the sources stay as they are."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            text = re.sub(
                r"((?:^>>> .*\n(?:(?!>>>|\n).*(?:\n|\Z))*)+)",
                r"```pycon\n\1\n```\n",
                obj.docstring.value + "\n",
                flags=re.M,
            )
            obj.docstring.value = re.sub(r"^(Shapes|Units|Raises|Source):", r"\n**\1:**", text, flags=re.M)
