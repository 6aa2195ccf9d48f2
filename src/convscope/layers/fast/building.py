"""A library of C++ files, compiled on this machine for this machine, once, and kept in the user's cache folder.

Of several processes that want it at once, one compiles and the others wait for it. Ctrl-C ends the compiler too.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from convscope import machine
from convscope.clock import cache
from convscope.errors import RunError
from convscope.files import write_whole

SWITCH = "CONVSCOPE_COMPILE"
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fPIC")
_PAUSE, _PATIENCE, _LONGEST = 0.02, 1.0, 600.0  # seconds: between two looks, until something is said, for all
Made = TypeVar("Made")
Tell = Callable[[str], None]  # takes how far it is


def text_of(sources: Sequence[Path]) -> str:
    """All files, one after another."""
    return "".join(path.read_text() for path in sources)


def digest_of(sources: Sequence[Path]) -> str:
    """Changes with the files."""
    return hashlib.sha256(text_of(sources).encode()).hexdigest()[:12]


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
    before = _stamp(path)
    with suppress(OSError, AttributeError):
        if _is_whole(path):
            cache.was_read(path)
            return load(path)
    with _told() as tell, _alone(path.with_name("compiling.lock"), tell):
        if _stamp(path) == before or not _is_whole(path):  # else another process built it in the meantime
            _compile(compiler, path, sources, tell)
    return load(path)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file is written anew."""
    with suppress(OSError):
        return path.stat().st_ino, path.stat().st_mtime_ns
    return None


def _is_whole(path: Path) -> bool:
    """Whether the file is what was built, and nobody else's: one that is cut would end the process when it is used."""
    if path.stat().st_uid not in (0, os.geteuid()):
        return False
    return cache.load("kernels", path.name) == hashlib.sha256(path.read_bytes()).hexdigest()


def _compile(compiler: str, path: Path, sources: Sequence[Path], tell: Tell) -> None:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernels.so"
        objects = {source: Path(folder) / f"{source.stem}.o" for source in sources if source.suffix == ".cpp"}
        command = [compiler, *_FLAGS]
        each = [[*command, "-c", str(source), "-o", str(made)] for source, made in objects.items()]
        _run(each, lambda done: tell(f"{done} of {len(each)} files"))
        _run([[*command, "-shared", *map(str, objects.values()), "-o", str(library)]], lambda done: None)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = library.read_bytes()
        write_whole(path, content)
        cache.save("kernels", path.name, hashlib.sha256(content).hexdigest())
        cache.remove_unread()


def _run(commands: Sequence[Sequence[str]], tell: Callable[[int], None]) -> None:
    """Run them, as many at a time as there are cores. None is left behind, whatever comes in between.

    Raises: subprocess.SubprocessError if one fails, or all together take ten minutes.
    """
    waiting, running, began = list(commands), list[_Command](), time.monotonic()
    with ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < machine.usable_cores():
                running.append(_Command(waiting.pop(0)))
                stack.callback(running[-1].end)
            time.sleep(_PAUSE)
            running = [command for command in running if not command.is_over()]
            tell(len(commands) - len(waiting) - len(running))
            if running and time.monotonic() - began > _LONGEST:
                raise subprocess.TimeoutExpired(running[0].words, _LONGEST)


class _Command:
    """A command in a session of its own, so that it can be ended with all that it began."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words, self._said = words, tempfile.TemporaryFile()  # noqa: SIM115 - read once it is over
        to: Any = {"stdin": subprocess.DEVNULL, "stdout": self._said, "stderr": self._said}
        self._process = subprocess.Popen(words, start_new_session=True, **to)

    def is_over(self) -> bool:
        """Whether it is. Raises: subprocess.CalledProcessError if it failed."""
        code = self._process.poll()
        if code:
            self._said.seek(0)
            raise subprocess.CalledProcessError(code, self.words, stderr=self._said.read().decode(errors="replace"))
        return code == 0

    def end(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._said.close()


@contextmanager
def _alone(path: Path, tell: Tell) -> Iterator[None]:
    """Hold a file that one process at a time can hold; where none can be held, go on without."""
    with ExitStack() as stack:
        with suppress(OSError):  # a cache that cannot be written, a disk without locks
            path.parent.mkdir(parents=True, exist_ok=True)
            file, began = stack.enter_context(path.open("a")), time.monotonic()
            while not _held(file) and time.monotonic() - began < _LONGEST:
                time.sleep(_PAUSE)
                tell("by another process")
        yield


def _held(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _told() -> Iterator[Tell]:
    """Tells a person who waits at a terminal how far it is, from the first second on: in a line that is written anew,
    or once where a display such as a bar has taken the place of stderr. In a pipe nothing is told.
    """
    stream, began, last = sys.stderr, time.monotonic(), ""

    def tell(part: str) -> None:
        nonlocal last
        seconds = time.monotonic() - began
        if seconds < _PATIENCE or not stream or not stream.isatty() or (last and stream is not sys.__stderr__):
            return
        text = f"convscope: compiling kernels for this processor, once ({part}, {seconds:.0f} s)"
        text = text[: shutil.get_terminal_size().columns - 1].ljust(len(last))
        if text != last:
            stream.write(f"\r{text}" if stream is sys.__stderr__ else f"{text}\n")
            stream.flush()
        last = text

    try:
        yield tell
    finally:
        if last and stream is sys.__stderr__:
            stream.write("\n")
