"""aside(work): on a thread of its own, which is gone afterwards.

OpenVINO's CPU plugin gives the thread that loads it another stack for signals, and frees that stack when it is
unloaded, on whatever thread. The first thread would keep a stack that is gone, and the next Ctrl-C would end the
process with a segmentation fault. So what loads the plugin runs aside.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T], *, stop: Callable[[], object] = lambda: None) -> T:
    """What `work` gives, computed on a thread that ends with it.

    Who waits for it can be interrupted: then `stop` is called, which has to end the work soon.
    """
    thread = ThreadPoolExecutor(1)
    try:
        return thread.submit(work).result()
    except BaseException:
        stop()
        raise
    finally:
        thread.shutdown()
