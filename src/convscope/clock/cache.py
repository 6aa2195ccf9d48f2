"""What was measured on this machine, kept in the user's cache folder for the next process.

A file holds its key in full and is written whole. One that is damaged or cannot be written counts for nothing: then it
is measured again. Its time says on which day it was last read, and what nobody reads for long is removed.
`XDG_CACHE_HOME` moves the folder.
"""

import hashlib
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any

from convscope import machine
from convscope.errors import RunError
from convscope.files import write_whole

_DAY = 86400.0  # seconds
_DAYS = 60  # that what is not read is kept
_OURS = re.compile(r"[a-z-]+-[0-9a-f]{16}\.(json|so)")


def folder() -> Path:
    """The folder for what this user's machines can make again."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if Path(root).is_absolute() else Path.home() / ".cache") / "convscope"


def here() -> dict[str, Any]:
    """What a measurement holds for: the processor, its instructions, the threads, the version of torch."""
    import torch

    return {
        "processor": machine.processor(),
        "instructions": machine.instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def load(name: str, key: Any) -> Any | None:
    """What was saved under the name and key; None if there is nothing, or nothing that can be read."""
    path = _path(name, key)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    was_read(path)
    return found.get("data") if isinstance(found, dict) and found.get("key") == _plain(key) else None


def save(name: str, key: Any, data: Any) -> bool:
    """Keep data (anything that JSON holds) under name and key; False if the folder cannot be written."""
    path = _path(name, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"key": key, "data": data}, indent=1) + "\n")
    except (OSError, RunError):
        return False
    return True


def was_read(path: Path) -> None:
    """A file of the folder is in use: its time says so, to a day."""
    with suppress(OSError):
        if time.time() - path.lstat().st_mtime > _DAY:
            os.utime(path, follow_symlinks=False)


def remove_unread() -> None:
    """Take from the folder what no version of convscope has read for 60 days; what is not ours, or a link, stays."""
    with suppress(OSError):
        for path in [path for path in folder().iterdir() if _OURS.fullmatch(path.name)]:
            with suppress(OSError):
                status = path.lstat()
                if S_ISREG(status.st_mode) and time.time() - status.st_mtime > _DAYS * _DAY:
                    path.unlink()


def _path(name: str, key: Any) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder() / f"{name}-{digest[:16]}.json"


def _plain(key: Any) -> Any:
    return json.loads(json.dumps(key))
