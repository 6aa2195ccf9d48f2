"""Decoder: pictures that others send in, decoded in a process of their own.

What makes a decoder crash, fill the memory or run for ever ends that process alone; the next picture gets a new one.
The lab has one; data sets are read through one a core, ahead of what is done with the pictures.
What comes back is JSON and numbers, never a pickle: a decoder that was taken over cannot run code here.
"""

import io
import json
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL, Signals
from threading import Lock, Timer
from typing import IO, Any, TypeVar

import numpy as np

from convscope.data.images import Picture, decode_stored, decode_values, in_range, open_file
from convscope.data.moving import Frame, stored_frames
from convscope.errors import ImageError

T = TypeVar("T")
SECONDS = 20.0
LARGEST = 512 * 2**20  # bytes of a file
MOST, FEW = 4, 8  # decoders at most; pictures for which one more is begun
DTYPES = {name: np.dtype(name) for name in ("uint8", "uint16", "int64", "float32")}
MEMORY = 4 * 2**30  # of addresses: four times what the largest PNG takes on its way

# The package `convscope.data` would import torch: a second and 200 MB that decoding does not need.
_WORKER = """
import sys, types
package = types.ModuleType("convscope.data")
package.__path__ = [sys.argv[1]]
sys.modules["convscope.data"] = package
from convscope.data.decoding import work
work()
"""


class Decoder:
    """A process that decodes one picture after the other; any number of threads may ask."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds, self._turn = seconds, Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """The process, begun if there is none."""
        if self._process is None:
            here = Path(__file__).parent
            path = os.pathsep.join(filter(None, (str(here.parents[1]), os.environ.get("PYTHONPATH"))))
            environment = os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WORKER, str(here)], env=environment, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return self._process

    def read(self, path: Path | str) -> Picture:
        """The picture in a file, as `read_image` gives it.

        Raises: ImageError as `read_image` and `decode` do.
        """
        with open_file(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > LARGEST:
                raise ImageError(f"{path}: has {size:,} bytes; the limit is {LARGEST:,}, so make it smaller")
            return self.decode(file.read(), source=str(path))

    def decode(self, content: bytes, *, source: str) -> Picture:
        """The picture, as `decode_image` gives it.

        Raises: ImageError as `decode_image` does, and if the process died of it or took longer than 20 s.

        >>> decoder = Decoder()
        >>> decoder.decode(b"", source="cat.jpg")
        Traceback (most recent call last):
        convscope.errors.ImageError: cat.jpg: is empty (0 bytes); get a whole copy
        >>> decoder.close()
        """
        pixels, head = self._ask("picture", content, source)
        return Picture(in_range(pixels), head["mode"], source, tuple(head["notes"]))

    def values(self, content: bytes, *, source: str) -> np.ndarray:
        """The numbers of a picture, as `decode_values` gives them.

        Raises: ImageError as `decode` does.
        """
        return self._ask("values", content, source)[0]

    def frames(self, path: Path, *, source: str, every: int = 1) -> Iterator[Frame]:
        """The picture in a file, or its frames, as `stored_frames` gives them; nobody else is served meanwhile.

        Raises: ImageError as `stored_frames` and `decode` do.
        """
        wish, whole = json.dumps({"path": str(path.absolute()), "every": every}).encode(), False
        with self._turn:
            try:
                with self._timed(source) as process:
                    _write(process.stdin, b"frames", _name(source), wish)
                while True:
                    with self._timed(source) as process:
                        head, numbers = _answer(process)
                    if whole := head == {} or "error" in head:
                        break
                    yield Frame(head["at"], _array(head, numbers), head["mode"], tuple(head["notes"]))
            finally:
                if not whole:  # what is still to come would be taken for the next answer
                    self.close()
        if head:
            raise ImageError(head["error"])

    def _ask(self, what: str, content: bytes, source: str) -> tuple[np.ndarray, dict[str, Any]]:
        with self._turn, self._timed(source) as process:
            _write(process.stdin, what.encode(), _name(source), content)
            head, numbers = _answer(process)
        if "error" in head:
            raise ImageError(head["error"])
        return _array(head, numbers), head

    @contextmanager
    def _timed(self, source: str) -> Iterator[subprocess.Popen[bytes]]:
        """The process, which is ended if it takes too long.

        Raises: ImageError if it dies.
        """
        process, late = self.start(), []
        timer = Timer(self._seconds, lambda: (late.append(True), process.kill()))
        timer.start()
        try:
            yield process
        except (OSError, EOFError):
            self.close()
            raise ImageError(f"{source}: {_why(process.returncode, bool(late), self._seconds)}") from None
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def aside(work: Sequence[Callable[[Decoder], T]]) -> Generator[T]:
    """What each piece of work makes of a decoder, in their order; some are done ahead, side by side.

    Close the generator if it is not read to its end: `contextlib.closing`.
    Raises: whatever the work raises, where it is its turn.
    """
    from convscope.machine import usable_cores  # not above: the process that decodes needs none

    count = max(1, min(MOST, usable_cores(), len(work) // FEW))
    made = [Decoder() for _ in range(count)]  # as many as threads, so that one is always idle
    idle, ahead = made.copy(), deque[Future[T]]()

    def one(job: Callable[[Decoder], T]) -> T:
        decoder = idle.pop()
        try:
            return job(decoder)
        finally:
            idle.append(decoder)

    threads = ThreadPoolExecutor(count, thread_name_prefix="decoding")
    try:
        for job in work:
            ahead.append(threads.submit(one, job))
            if len(ahead) > count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)  # waits for what runs, which would begin a process anew
        for decoder in made:
            decoder.close()


def work() -> None:
    """What the process does: decode whatever comes in, until nothing more can come."""
    _limit()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while True:
        try:
            what, name, content = (_read(sys.stdin.buffer) for _ in range(3))
        except EOFError:
            return
        try:
            for numbers, head in _decoded(what.decode(), content, name.decode(errors="surrogatepass")):
                head |= {"shape": numbers.shape, "dtype": numbers.dtype.name}
                _write(out, json.dumps(head).encode(), np.ascontiguousarray(numbers).data.cast("B"))
            if what == b"frames":
                _write(out, b"{}", b"")
        except ImageError as error:
            _write(out, json.dumps({"error": str(error)}).encode(), b"")


def _decoded(what: str, content: bytearray, source: str) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    if what == "values":
        yield decode_values(io.BytesIO(content), source=source), {}
    elif what == "picture":
        pixels, mode, notes = decode_stored(io.BytesIO(content), source=source)
        yield pixels, {"mode": mode, "notes": notes}
    else:
        wish = json.loads(content)
        for frame in stored_frames(Path(wish["path"]), source=source, every=wish["every"]):
            yield frame.pixels, {"at": frame.at, "mode": frame.mode, "notes": frame.notes}


def _name(source: str) -> bytes:
    return source.encode(errors="surrogatepass")


def _answer(process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], bytearray]:
    return json.loads(_read(process.stdout)), _read(process.stdout)


def _array(head: dict[str, Any], numbers: bytearray) -> np.ndarray:
    return np.frombuffer(numbers, DTYPES[head["dtype"]]).reshape(head["shape"])


def _write(file: IO[bytes] | None, *parts: bytes | memoryview) -> None:
    assert file is not None
    for part in parts:
        file.write(struct.pack("<Q", len(part)))
        file.write(part)
    file.flush()


def _read(file: IO[bytes] | None) -> bytearray:
    """One part, whole. Raises: EOFError."""
    assert file is not None
    head = file.read(8)
    if len(head) < 8:
        raise EOFError
    part = bytearray(struct.unpack("<Q", head)[0])
    if file.readinto(part) < len(part):  # pyright: ignore[reportAttributeAccessIssue]
        raise EOFError
    return part


def _limit() -> None:
    """No more memory than a picture needs, no file larger than nothing, no core."""
    import resource

    for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (most, most))


def _why(code: int, late: bool, seconds: float) -> str:
    if late:
        return f"takes longer than {seconds:g} s to decode; make it smaller first"
    if code == -SIGKILL:
        return "its decoder was killed by the system, often because memory ran out; free some, or make it smaller first"
    how = Signals(-code).name if code < 0 else f"exit code {code}"
    return f"made the decoder crash ({how}); save it anew with another program"
