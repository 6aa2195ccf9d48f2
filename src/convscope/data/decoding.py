"""Decoder: pictures that others send in, decoded in a process of their own.

What makes a decoder crash, fill the memory or run for ever ends that process alone; the next picture gets a new one.
What comes back is JSON and numbers, never a pickle: a decoder that was taken over cannot run code here.
"""

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from signal import Signals
from threading import Lock, Timer
from typing import IO

import numpy as np

from convscope.data.images import Picture, decode_image
from convscope.errors import ImageError

SECONDS = 20.0
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

    def decode(self, content: bytes, *, source: str) -> Picture:
        """The picture, as `decode_image` gives it.

        Raises: ImageError as `decode_image` does, and if the process died of it or took longer than 20 s.

        >>> decoder = Decoder()
        >>> decoder.decode(b"", source="cat.jpg")
        Traceback (most recent call last):
        convscope.errors.ImageError: cat.jpg: is empty (0 bytes); get a whole copy
        >>> decoder.close()
        """
        with self._turn:
            process, late = self.start(), []
            timer = Timer(self._seconds, lambda: (late.append(True), process.kill()))
            timer.start()
            try:
                head, pixels = _asked(process, content, source)
            except (OSError, EOFError):
                self.close()
                raise ImageError(f"{source}: {_why(process.returncode, bool(late), self._seconds)}") from None
            finally:
                timer.cancel()
        if "error" in head:
            raise ImageError(head["error"])
        values = np.frombuffer(pixels, np.float32).reshape(head["shape"])
        return Picture(values, head["mode"], source, tuple(head["notes"]))

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def work() -> None:
    """What the process does: decode whatever comes in, until nothing more can come."""
    _limit()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while True:
        try:
            source, content = _read(sys.stdin.buffer).decode(), _read(sys.stdin.buffer)
        except EOFError:
            return
        try:
            picture = decode_image(io.BytesIO(content), source=source)
        except ImageError as error:
            _write(out, json.dumps({"error": str(error)}).encode(), b"")
        else:
            head = {"shape": picture.shape, "mode": picture.mode, "notes": picture.notes}
            _write(out, json.dumps(head).encode(), np.ascontiguousarray(picture.pixels).data.cast("B"))


def _asked(process: subprocess.Popen[bytes], content: bytes, source: str) -> tuple[dict, bytearray]:
    assert process.stdin is not None
    assert process.stdout is not None
    _write(process.stdin, source.encode(), content)
    return json.loads(_read(process.stdout)), _read(process.stdout)


def _write(file: IO[bytes], *parts: bytes | memoryview) -> None:
    for part in parts:
        file.write(struct.pack("<Q", len(part)))
        file.write(part)
    file.flush()


def _read(file: IO[bytes]) -> bytearray:
    """One part, whole. Raises: EOFError."""
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
    how = Signals(-code).name if code < 0 else f"exit code {code}"
    return f"made the decoder crash ({how}); save it anew with another program"
