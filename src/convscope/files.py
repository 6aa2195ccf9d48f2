"""Files that appear whole or not at all, and folders that are checked before work begins."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, BinaryIO

from convscope.errors import InputError, RunError, need

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("png", "svg", "pdf")
_made: list[Path] = []


def write_whole(path: Path | str, write: bytes | str | Callable[[BinaryIO], object]) -> Path:
    """Write a file so that a reader, or a crash, sees the old file or the new one and nothing between.

    The bytes go to a temporary file beside `path`, are flushed to the disk, and take the name in one
    step; the folder's entry is flushed as well.
    `write` is the content, or a function that is given the open binary file.
    Raises: RunError if the disk refuses; the old file is kept.

    >>> folder = tempfile.mkdtemp()
    >>> write_whole(Path(folder) / "a.txt", "hello").read_text()
    'hello'
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()  # the link stays, its target is replaced
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            _write_into(path, write)  # a device or a pipe has nothing to keep, and must not be replaced
        else:
            _replace(path, write)
    except Exception as error:
        refused = _refusal(error)
        if refused is None:
            raise
        reason = refused.strerror or refused
        raise RunError(f"{path}: could not be written ({reason}); nothing was replaced") from error
    return path


def read_plain(path: Path | str) -> bytes:
    """What a file holds.

    Raises: OSError as any reading does, and for a device or a pipe, which may never end.

    >>> read_plain("/dev/zero")
    Traceback (most recent call last):
    OSError: [Errno 22] a device or a pipe: '/dev/zero'
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - a path of any type
    if not (S_ISREG(mode) or S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a device or a pipe", os.fspath(path))
    return Path(path).read_bytes()


def writable_folder(path: Path | str, *, option: str = "--out") -> Path:
    """The folder, made if it is missing, once it is known that files can be written in it.

    Raises: InputError if it is a file, or cannot be made or written.

    >>> writable_folder(tempfile.mkdtemp()).is_dir()
    True
    """
    path = Path(path)
    try:
        _made.extend(p for p in (path, *path.parents) if not p.exists())
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except FileExistsError:
        raise InputError(f"{path}: is a file, but a folder is needed; give another {option}") from None
    except NotADirectoryError:
        raise InputError(f"{path}: lies below a file, so it cannot be a folder; give another {option}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be written ({reason}); give another {option}") from error
    return path


def take_back() -> None:
    """Remove the folders that `writable_folder` made in this process and that hold nothing: what failed leaves none.

    >>> made = writable_folder(Path(tempfile.mkdtemp()) / "a" / "b")
    >>> take_back()
    >>> made.parent.exists()
    False
    """
    for path in sorted(set(_made), key=lambda p: len(p.parts), reverse=True):
        with suppress(OSError):  # one that holds something, or is gone
            path.rmdir()
    _made.clear()


def check_room(folder: Path, needed: int, *, what: str) -> None:
    """That the folder's disk has so many bytes left for `what`.

    Raises: InputError if it has not.

    >>> check_room(Path(tempfile.gettempdir()), 1, what="a letter needs")
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"{folder}: has {free / 2**20:,.1f} MiB left on its disk, but {what} {needed / 2**20:,.1f} "
                         "MiB; free some, or give another --out")  # fmt: skip


def known_ending(path: Path | str, endings: Sequence[str], *, what: str, option: str = "--out") -> str:
    """The ending of a file's name, in small letters.

    Raises: InputError if it is none of `endings`; `what` begins the list of them.

    >>> known_ending("conv.SVG", (".svg", ".gif"), what="the moving picture is")
    '.svg'
    """
    ending = Path(path).suffix.lower()
    if ending not in endings:
        raise InputError(f"{path}: ends in {ending or 'nothing'}, but {what} {', '.join(endings[:-1])} or "
                         f"{endings[-1]}; give another {option}")  # fmt: skip
    return ending


def figure_path(path: Path | str) -> Path:
    """The path, if its name ends in one of `FIGURES`.

    Raises: InputError if not, or if matplotlib is not installed.

    >>> figure_path("times.SVG").suffix
    '.SVG'
    """
    if Path(path).suffix.lower().removeprefix(".") not in FIGURES:
        raise InputError(f"{path}: a figure is {', '.join(FIGURES)}; let the name end in one of them")
    need("matplotlib", extra="pictures")
    return Path(path)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of matplotlib, in inches.

    Raises: InputError if matplotlib is not installed.
    """
    need("matplotlib", extra="pictures")
    from matplotlib.figure import Figure  # a slow import, and only plots need it

    return Figure(figsize=(width, height), layout="constrained")


def write_figure(figure: "Figure", path: Path | str) -> Path:
    """Write matplotlib's figure whole, in the format that the name ends in; the same figure gives the same bytes.

    Raises: InputError if that is none of `FIGURES`; RunError if the disk refuses.
    """
    kind = figure_path(path).suffix.lower().removeprefix(".")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    return write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=144, metadata=metadata))


def _replace(path: Path, write: bytes | str | Callable[[BinaryIO], object]) -> None:
    if not callable(write) and shutil.disk_usage(path.parent).free < len(write):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # before anything is written
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _fill(file, write)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the file stands; some file systems cannot flush a folder
        _sync_folder(path.parent)


def _write_into(path: Path, write: bytes | str | Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as file:
        _fill(file, write)


def _refusal(error: BaseException | None) -> OSError | None:
    """The disk's own error, which torch hides below one of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _fill(file: BinaryIO, write: bytes | str | Callable[[BinaryIO], object]) -> None:
    if callable(write):
        write(file)
    else:
        file.write(write.encode(errors="backslashreplace") if isinstance(write, str) else write)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
