"""A library of C++ files, compiled on this machine for this machine, once, and kept in the user's cache folder."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from convscope import machine
from convscope.clock import cache
from convscope.errors import RunError
from convscope.files import write_whole

SWITCH = "CONVSCOPE_COMPILE"
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fPIC")
Made = TypeVar("Made")


def text_of(sources: Sequence[Path]) -> str:
    """All files, one after another."""
    return "".join(path.read_text() for path in sources)


def built(sources: Sequence[Path], load: Callable[[Path], Made]) -> tuple[Made | None, str]:
    """What `load` makes of the library of these files, compiled unless it is kept; or None, and why."""
    if os.environ.get(SWITCH) == "0":
        return None, f"{SWITCH}=0"
    compiler = os.environ.get("CXX") or "g++"
    found = shutil.which(compiler)
    if found is None:
        return None, f"there is no {compiler}"
    key = {"flags": _FLAGS, "instructions": machine.instructions(), "processor": machine.processor()}
    parts = (repr(key), found, str(Path(found).resolve().stat().st_mtime_ns), text_of(sources))
    path = cache.folder() / f"kernels-{hashlib.sha256(''.join(parts).encode()).hexdigest()[:16]}.so"
    try:
        return _loaded(found, path, sources, load), ""
    except (OSError, RunError, AttributeError, subprocess.SubprocessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        lines = said.strip().splitlines() or ["it gave no reason"]
        return None, f"{compiler} could not build them: {lines[0]}"


def _loaded(compiler: str, path: Path, sources: Sequence[Path], load: Callable[[Path], Made]) -> Made:
    """The library that is kept; built where there is none, or none that can be loaded."""
    with suppress(OSError, AttributeError):
        if _is_whole(path):
            return load(path)
    _compile(compiler, path, sources)
    return load(path)


def _is_whole(path: Path) -> bool:
    """Whether the file is what was built, and nobody else's: one that is cut would end the process when it is used."""
    if path.stat().st_uid not in (0, os.geteuid()):
        return False
    return cache.load("kernels", path.name) == hashlib.sha256(path.read_bytes()).hexdigest()


def _compile(compiler: str, path: Path, sources: Sequence[Path]) -> None:
    def run(*arguments: object) -> None:
        command = [compiler, *_FLAGS, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(machine.usable_cores()) as pool:
        library = Path(folder) / "kernels.so"
        objects = {source: Path(folder) / f"{source.stem}.o" for source in sources if source.suffix == ".cpp"}
        tuple(pool.map(lambda made: run("-c", made[0], "-o", made[1]), objects.items()))
        run("-shared", *objects.values(), "-o", library)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = library.read_bytes()
        write_whole(path, content)
        cache.save("kernels", path.name, hashlib.sha256(content).hexdigest())
