"""Packages that only some need: one sentence where one is missing."""

from importlib.util import find_spec

from convscope.errors import InputError


def need(*packages: str, extra: str) -> None:
    """Check that packages are installed; `extra` is the extra of convscope that brings them.

    Raises: InputError that says how to install them.

    >>> need("torch", extra="export")
    """
    missing = [p for p in packages if find_spec(p) is None]
    if missing:
        raise InputError(f"{' and '.join(missing)}: not installed; pip install 'convscope[{extra}]'")
