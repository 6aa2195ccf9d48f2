"""How `optimize` tells where it is: a bar on a terminal, a line a candidate elsewhere; always on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

from convscope.optimize.result import ORIGINAL

Show = Callable[[str, int, int], object]


@final
class Progress:
    """Where the work is among `total` candidates: `show` is given each change, `tell` a line for each that is done."""

    def __init__(self, *, show: Show, tell: Callable[[str], object]) -> None:
        self.show, self.tell = show, tell
        self.at = self.total = 0
        self.name, self.began, self.last = ORIGINAL, 0.0, ""

    def begin(self, name: str) -> None:
        """The next candidate."""
        self.at, self.name, self.began = self.at + 1, name, time.monotonic()
        self.doing("")

    def doing(self, what: str) -> None:
        """What is done with it, or with all of them if none is at work."""
        text = ": ".join(filter(None, (self.name, what)))
        if text != self.last:
            self.last = text
            self.show(text, self.at, self.total)

    def learning(self, share: float) -> None:
        """How much of its learning is behind it."""
        self.doing(f"learning, {share:.0%}")

    def end(self, verdict: str) -> None:
        """It is done."""
        seconds = time.monotonic() - self.began
        self.tell("  ".join(filter(None, (f"{self.at}/{self.total}", self.name, f"{seconds:.1f} s", verdict))))
        self.name = ""


@contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """Progress on stderr, or nowhere."""
    if quiet:
        yield Progress(show=lambda *_: None, tell=lambda _: None)
    elif not sys.stderr.isatty():
        yield Progress(show=lambda *_: None, tell=lambda line: print(line, file=sys.stderr, flush=True))
    else:
        with _bar() as show:
            yield Progress(show=show, tell=lambda _: None)


@contextmanager
def _bar() -> Iterator[Show]:
    """No thread draws it, since times are measured meanwhile; it keeps the stream, which engines close for others."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Bars(*columns, console=Console(file=sys.stderr), auto_refresh=False, transient=True) as bars:
        bar = bars.add_task("", total=None)
        yield lambda text, at, total: bars.update(bar, description=text, completed=at, total=total, refresh=True)
