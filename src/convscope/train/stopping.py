"""What ends a run early: signals, memory, and other people's errors said as theirs."""

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import torch

from convscope import machine
from convscope.errors import ConvscopeError, InputError, RunError, out_of_memory
from convscope.runs.config import TrainConfig

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class Interrupted(RunError):  # noqa: N818 - it is no error
    """A run that a signal stopped, after its step was finished and saved."""

    def __init__(self, message: str, *, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Stop:
    """The signal that asked a run to stop; 0 is none."""

    number = 0


@contextmanager
def signals() -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM; a second stops at once."""
    stop = Stop()

    def hear(number: int, frame: object) -> None:
        if stop.number:
            raise Interrupted("train: stopped at once by a second signal; the last checkpoint was kept", number=number)
        stop.number = number

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _peak() -> str:
    """The most memory that was in use, of the GPU if it computed."""
    if torch.cuda.is_initialized() and (most := torch.cuda.max_memory_allocated()):
        return f"{most / 2**30:.1f} GiB of the GPU"
    return f"{getrusage(RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB at most"


@contextmanager
def plain_errors(config: TrainConfig, folder: Path) -> Iterator[None]:
    """Memory that runs out, batches too small for normalisation, and processes that are gone, in a sentence."""
    try:
        yield
    except ConvscopeError:
        raise
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise RunError(f"train: {error.filename or folder}: could not be written ({error.strerror}), the last "
                       "checkpoint was kept; free some room and resume") from error  # fmt: skip
    except (RuntimeError, ValueError, MemoryError) as error:
        text = str(error)
        if out_of_memory(error):
            raise RunError(
                f"train: memory ran out with batch_size {config.batch_size}, where {_peak()} were in use; "
                "use a smaller one"
            ) from error
        if "more than 1 value per channel" in text:
            raise InputError("train: batch normalisation needs two pictures a step; use a larger batch_size") from error
        if "finished reduction in the prior iteration" in text:
            raise InputError("train: the network has weights that do not enter its loss, which several processes "
                             "cannot share; take them out, or train with one process") from error  # fmt: skip
        if isinstance(error, torch.distributed.DistError) or "gloo" in text:
            if machine.number_of_processes() > 1:  # torchrun is about to end this process, which has a word to say
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise RunError(f"train: process {machine.rank()} of {machine.number_of_processes()} lost the others "
                           f"({_cause(text)}); the last checkpoint in {folder} was kept; resume, with as many "
                           "processes as there are") from error  # fmt: skip
        raise


def _cause(text: str) -> str:
    """What a library says between its source line and its peer's address."""
    return text.splitlines()[0].rpartition("] ")[2].partition(" [")[0].strip(" .")
