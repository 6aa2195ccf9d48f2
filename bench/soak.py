"""A long training run, watched from beside it: `python bench/soak.py [--epochs 400]`.

Memory and open files are read every tenth of a second while a run trains, validates and saves. What counts is the
growth from the second quarter of the run to the last: the first quarter is where caches fill.
"""

import argparse
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from convscope.machine import describe, tune
from convscope.table import Column, Table

SECONDS = 0.1


@dataclass
class Watch:
    """What was seen of this process: resident bytes and open files, in turns."""

    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Read both once."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory.append(pages * 4096)
        self.files.append(len(list(Path("/proc/self/fd").iterdir())))

    def growth(self, seen: list[int]) -> float:
        """The median of the last quarter less that of the second."""
        quarter = max(1, len(seen) // 4)
        return statistics.median(seen[-quarter:]) - statistics.median(seen[quarter : 2 * quarter])


@contextmanager
def watching(seconds: float = SECONDS) -> Iterator[Watch]:
    """Look again and again, from a thread, until the block is left."""
    watch, ended = Watch(), threading.Event()

    def looking() -> None:
        while not ended.wait(seconds):
            watch.look()

    thread = threading.Thread(target=looking, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def soak(folder: Path, *, epochs: int, save_every_steps: int = 5) -> Watch:
    """Train LeNet5 on the digits in large batches, saving often."""
    from convscope.runs import TrainConfig
    from convscope.train import train

    settings = {"epochs": epochs, "batch_size": 400, "save_every_steps": save_every_steps, "device": "cpu"}
    with watching() as watch:
        train(TrainConfig(**settings, num_threads=1), out=folder, progress=False)
    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=400)
    wanted = parser.parse_args()
    tune()
    with tempfile.TemporaryDirectory() as folder:
        watch = soak(Path(folder), epochs=wanted.epochs)
    rows = [
        {"what": name, "median": statistics.median(seen), "largest": max(seen), "growth": watch.growth(seen)}
        for name, seen in (("memory (MiB)", [m / 2**20 for m in watch.memory]), ("open files", watch.files))
    ]
    columns = (Column("what", "what"), *(Column(k, k) for k in ("median", "largest", "growth")))
    facts = describe()
    notes = (
        f"{wanted.epochs} epochs, {len(watch.memory)} looks; growth from the second quarter to the last",
        f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}",
    )
    print(Table(columns, rows, notes=notes))


if __name__ == "__main__":
    main()
