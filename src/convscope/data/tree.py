"""The real files below a folder: links are not followed, and what systems leave behind is passed over."""

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from convscope.data.folder import LITTER, SUFFIXES
from convscope.errors import DataError

MAX_TEXT = 512 * 2**20  # bytes of one annotation file; instances_train2017.json has 470 million


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder read once; names are relative to `root`, with slashes. `links` and `litter` are not among `files`.

    `members`: what lies in an archive among them, as (archive, offset, bytes).
    """

    root: Path
    files: frozenset[str]
    links: frozenset[str] = frozenset()
    litter: frozenset[str] = frozenset()
    _pictures: tuple[str, ...] = field(default=(), repr=False)
    members: dict[str, tuple[str, int, int]] = field(default_factory=dict, repr=False)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The files that are named as pictures, sorted."""
        return self._pictures

    def named(self, *suffixes: str, below: str = "") -> list[str]:
        """The files below a folder whose names end so, sorted."""
        start = f"{below}/" if below else ""
        return sorted(f for f in self.files if f.lower().endswith(suffixes) and f.startswith(start))

    def children(self, top: str = "") -> list[str]:
        """The names of the folders in a folder that hold files, sorted."""
        start = f"{top}/" if top else ""
        below = (f[len(start) :] for f in self.files if f.startswith(start))
        return sorted({b.split("/")[0] for b in below if "/" in b})

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.root / name

    def read(self, name: str) -> bytes:
        """What a file holds.

        Raises: DataError if it cannot be read, or has more than 512 MiB.
        """
        archive, offset, count = self.members.get(name, (name, 0, -1))
        path = self.path(archive)
        try:
            if archive != name:
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(min(count, MAX_TEXT))
            if (size := path.stat().st_size) > MAX_TEXT:
                raise DataError(f"{name}: has {size:,} bytes; the limit is {MAX_TEXT:,}, so make it smaller")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror}); check its permissions") from None

    def text(self, name: str) -> str:
        """What a file says, in UTF-8 with or without its mark.

        Raises: DataError as `read` does, and if it is no UTF-8.
        """
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None


def walk(root: Path | str) -> Tree:
    """Everything below a folder.

    Raises: DataError if there is no such folder.
    """
    root = Path(root)
    if root.is_file():
        raise DataError(f"{root}: is a file, but a folder is needed; unpack an archive and give its folder")
    if not root.is_dir():
        raise DataError(f"{root}: is no folder; check the path")
    files, links, litter = set(), set(), set()
    for name, is_link in _entries(root):
        parts = name.split("/")
        if any(p.lower() in LITTER or p.startswith("._") for p in parts):
            litter.add(name)
        elif is_link:
            links.add(name)
        elif not any(p.startswith(".") for p in parts):
            files.add(name)
    pictures = tuple(sorted(f for f in files if posixpath.splitext(f)[1].lower() in SUFFIXES))
    return Tree(root, frozenset(files), frozenset(links), frozenset(litter), pictures)


def joined(folder: str, name: str) -> str | None:
    """A name as an annotation in `folder` gives it, relative to the root; None if it leads out.

    >>> joined("annotations", "../images/a.png"), joined("", "/etc/passwd"), joined("", "../x")
    ('images/a.png', None, None)
    """
    path = posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))
    return None if path.startswith(("../", "/")) or path == ".." else path


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from None


def _entries(root: Path) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a link) of all that is no real folder; devices and pipes are left out."""
    for at, folders, names in os.walk(root, onerror=_refuse):  # follows no links
        here = Path(at)
        start = "" if here == root else here.relative_to(root).as_posix() + "/"
        yield from ((start + f, True) for f in folders if (here / f).is_symlink())
        for name in names:
            path = here / name
            if path.is_symlink():
                yield start + name, True
            elif path.is_file():
                yield start + name, False
