"""What was measured on this machine, kept in the user's cache folder for the next process.

A file holds its key in full and is written whole. One that is damaged or cannot be written counts for nothing: then it
is measured again. `XDG_CACHE_HOME` moves the folder.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from convscope import machine
from convscope.errors import RunError
from convscope.files import write_whole


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
    try:
        found = json.loads(_path(name, key).read_text())
    except (OSError, ValueError):
        return None
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


def _path(name: str, key: Any) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder() / f"{name}-{digest[:16]}.json"


def _plain(key: Any) -> Any:
    return json.loads(json.dumps(key))
