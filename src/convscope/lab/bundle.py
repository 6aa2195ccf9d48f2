"""The page's modules as one script: for a file that is opened without a server, and for a notebook."""

import re
from functools import cache
from importlib.resources import files

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.]+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export (async function|function|class|const) (\w+)", re.MULTILINE)


@cache
def bundle(entry: str) -> str:
    """A script that does what the module `entry` does: each module it needs is a function that gives its exports.

    >>> "import" in bundle("dom"), bundle("dom").count("const in_dom = (() => {")
    (False, 1)
    """
    order: dict[str, str] = {}
    _collect(entry, order)
    return '"use strict";\n' + "\n".join(order.values())


def static(name: str) -> str:
    """The text of a file of the page."""
    return (files("convscope.lab") / "static" / name).read_text(encoding="utf-8")


def _collect(name: str, order: dict[str, str]) -> None:
    if _variable(name) in order:
        return
    text = static(f"{name}.js")
    for found in IMPORT.finditer(text):
        _collect(found[2], order)
    exports = ", ".join(found[2] for found in EXPORT.finditer(text))
    text = IMPORT.sub(lambda m: f"const {{{m[1].replace(' as ', ': ')}}} = {_variable(m[2])};", text)
    text = EXPORT.sub(r"\1 \2", text)
    order[_variable(name)] = f"const {_variable(name)} = (() => {{\n{text}\nreturn {{ {exports} }};\n}})();"


def _variable(name: str) -> str:
    return "in_" + name.replace(".", "_")
