"""What convscope raises.

    ConvscopeError                 every error of ours; `exit_code` is what the command line returns
    ├── InputError (ValueError)    what was asked for cannot be done as asked: exit 2
    │   ├── ImageError             a picture cannot be read
    │   ├── ModelError             a model is not found, or does not take the input
    │   ├── DataError              a data set or its labels are wrong
    │   ├── ConfigError            a setting is unknown or has the wrong type
    │   └── CheckpointError        a run folder or a checkpoint is missing or damaged
    ├── RunError (RuntimeError)    work that had begun failed: exit 1
    └── LimitError                 a network costs more, or sees less, than was allowed: exit 3

A message is one sentence: where, what was found, how to mend it.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec


class ConvscopeError(Exception):
    """Base of every error that convscope raises on purpose; `quiet` if another process of the run says it."""

    exit_code = 1
    quiet = False


class InputError(ConvscopeError, ValueError):
    """Bad usage or bad input."""

    exit_code = 2


class ImageError(InputError):
    """A picture that cannot be read as asked."""


class ModelError(InputError):
    """A model that cannot be found, or that does not take its input."""


class DataError(InputError):
    """A data set whose files or labels are wrong."""


class ConfigError(InputError):
    """A setting that is unknown or of the wrong type."""


class CheckpointError(InputError):
    """A run folder or a checkpoint that is missing, damaged or of another kind."""


class RunError(ConvscopeError, RuntimeError):
    """Work that had begun and failed."""


class LimitError(ConvscopeError):
    """A limit that a network does not keep."""

    exit_code = 3


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in Python's words or in torch's.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("[enforce fail] can't allocate memory"))
    (True, True)
    """
    words = ("allocate memory", "Storage size calculation overflowed", "out of memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))


def first_line(error: BaseException, *, most: int = 200) -> str:
    """The first line of what an error says; its kind, where it says nothing.

    >>> first_line(ValueError("two lines\\nof text")), first_line(ValueError())
    ('two lines', 'ValueError')
    """
    lines = str(error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence part that helps with a misspelt name.

    >>> nearest("LeNet", ["LeNet5", "ConvNet3"])
    "did you mean 'LeNet5'?"
    >>> nearest("x", ["LeNet5", "ConvNet3"])
    'known: ConvNet3, LeNet5'
    """
    names = sorted(known)
    lowered = {n.lower(): n for n in names}
    close = get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"did you mean {lowered[close[0]]!r}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}"


def need(*packages: str, extra: str) -> None:
    """Check that packages are installed; `extra` is the extra of convscope that brings them.

    Raises: InputError that says how to install them.

    >>> need("torch", extra="export")
    """
    missing = [p for p in packages if find_spec(p) is None]
    if missing:
        raise InputError(f"{' and '.join(missing)}: not installed; pip install 'convscope[{extra}]'")
