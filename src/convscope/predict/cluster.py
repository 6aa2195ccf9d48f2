"""Very many pictures on many cores or machines: Ray Data deals them out, and the results are Parquet.

Nothing is reported home: Ray's statistics of use are off, and its dashboard is not started.
"""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from convscope.data.decoding import Decoder
from convscope.data.frames import try_frames
from convscope.data.images import Picture
from convscope.data.named import expand
from convscope.errors import ConvscopeError, ImageError, InputError, RunError, first_line, need
from convscope.files import writable_folder
from convscope.predict.looking import BATCH, Wish, look
from convscope.predict.saving import save_parquet
from convscope.runs.loaded import LoadedModel, load_model
from convscope.table import Column, Table, to_json

PART = 10_000  # pictures whose rows are in one file
SHOWN = 20  # damaged pictures that are named


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a job over very many pictures came to: the first of the `damaged` ones are named, with what is wrong."""

    pictures: int
    damaged: int
    named: tuple[str, ...]
    nodes: int
    seconds: float
    files: tuple[Path, ...]

    def table(self) -> Table:
        """A row a fact, the damaged pictures below."""
        facts = {"pictures": self.pictures, "damaged": self.damaged, "machines that worked": self.nodes}
        facts |= {"pictures a second": round(self.pictures / self.seconds, 1), "files": len(self.files)}
        more = [f"... and {self.damaged - len(self.named):,} more"] if self.damaged > len(self.named) else []
        rows = tuple({"what": what, "value": value} for what, value in facts.items())
        notes = (*self.named, *more)
        return Table((Column("what", "what"), Column("value", "value")), rows, title="Predictions", notes=notes)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        facts = {"pictures": self.pictures, "damaged": self.damaged, "nodes": self.nodes, "seconds": self.seconds}
        return facts | {"named": list(self.named), "files": list(map(str, self.files))}


def predict_on_cluster(
    loaded: LoadedModel, names: Sequence[str], *, out: Path, wish: Wish,
    watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda work, count: work,
) -> Sweep:  # fmt: skip
    """What a model says of very many pictures, on the cluster that RAY_ADDRESS names, a running one, or this machine.

    Pictures and model must be at the same paths on every machine. `out` is a folder for `predictions-00000.parquet`
    and so on (`objects`, `regions` of other heads): 10,000 pictures a file, in the order of `names`. A picture that
    cannot be read does not stop the job, and has its row in `damaged-00000.parquet`. `watch` is handed what comes in
    (`files` of each says how many are done with) and the number of files, and may tell how far it is.
    Raises: ImageError if a folder of pictures is not there; InputError if Ray is not installed, or `out` holds results
    already; ModelError if the model does not fit its task; RunError if the cluster fails.
    """
    need("ray", "pyarrow", "pandas", extra="ray")
    files = expand(names)
    parts, began = _Parts(_empty(out)), time.monotonic()
    with _ctrl_c(), _ray() as ray:
        workers = max(1, min(int(ray.cluster_resources().get("CPU", 1)), -(-len(files) // BATCH)))
        blocks = min(-(-len(files) // BATCH), max(4 * workers, -(-len(files) // (32 * BATCH))))
        places = [{"name": name, "path": _everywhere(name)} for name in files]
        strategy = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1)  # else the nearest has all
        told = ray.data.from_items(places, override_num_blocks=blocks).map_batches(
            _Worker, fn_constructor_args=(_everywhere(loaded.spec), wish),
            batch_size=BATCH, num_cpus=1, compute=strategy,
        )  # fmt: skip
        for batch in watch(told.iter_rows(), len(files)):
            parts.take(batch)
        parts.close()
    return Sweep(parts.pictures, parts.damaged, tuple(parts.named), len(parts.nodes), time.monotonic() - began,
                 tuple(parts.files))  # fmt: skip


class _Worker:
    """The network, loaded once in each process of the cluster."""

    def __init__(self, spec: str, wish: Wish) -> None:
        torch.set_num_threads(1)  # it was given one core
        self.loaded, self.wish, self.decoder = load_model(spec), wish, Decoder()

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
        from ray import get_runtime_context

        node = get_runtime_context().get_node_id()
        frames = self._frames(batch["name"], batch["path"])
        while some := list(islice(frames, BATCH)):
            whole = [(name, picture) for name, picture in some if isinstance(picture, Picture)]
            told = look(self.loaded, whole, self.wish)[0].data() if whole else {}
            damaged = [{"image": name, "error": str(error)} for name, error in some if isinstance(error, ImageError)]
            rows = to_json({**told, "damaged": damaged})
            yield {"pictures": [len(some)], "rows": [rows], "node": [node], "files": [0]}
        yield {"pictures": [0], "rows": ["{}"], "node": [node], "files": [len(batch["name"])]}

    def _frames(self, names: Iterable[str], paths: Iterable[str]) -> Iterator[tuple[str, Picture | ImageError]]:
        """The pictures of files, called as they were asked for, wherever they are here."""
        for name, path in zip(names, paths, strict=True):
            for called, picture in try_frames(str(path), every=self.wish.every, decoder=self.decoder):
                told = ImageError(str(picture).replace(str(path), name)) if isinstance(picture, ImageError) else picture
                yield name + called.removeprefix(str(path)), told


class _Parts:
    """Rows as they come in, written whole, so many pictures at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures = self.damaged = self.held = self.number = 0
        self.named: list[str] = []
        self.nodes: set[str] = set()
        self.files: list[Path] = []
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def take(self, batch: Mapping[str, Any]) -> None:
        """The rows of some pictures."""
        for table, rows in json.loads(batch["rows"]).items():
            self.rows.setdefault(table, []).extend(rows)
            if table == "damaged":
                self.damaged += len(rows)
                self.named += [row["error"] for row in rows[: SHOWN - len(self.named)]]
        self.nodes.add(batch["node"])
        self.pictures += batch["pictures"]
        self.held += batch["pictures"]
        if self.held >= PART:
            self.close()

    def close(self) -> None:
        """Write what is held."""
        for table, rows in self.rows.items():
            if rows or table != "damaged":
                self.files.append(save_parquet(table, rows, self.folder / f"{table}-{self.number:05}.parquet"))
        self.number, self.held, self.rows = self.number + 1, 0, {}


def _everywhere(name: str) -> str:
    """A path as processes with other working folders know it; any other name as it is."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def _empty(out: Path) -> Path:
    if found := sorted(out.glob("*.parquet") if out.is_dir() else ()):
        raise InputError(f"{out}: holds {found[0].name} already; remove the results in it, or give another --out")
    return writable_folder(out)


@contextmanager
def _ray() -> Iterator[Any]:
    """Ray, connected to a cluster, or to one of its own that ends with this; its errors in a sentence."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    import ray
    import ray.data
    from ray.exceptions import RayError

    errors: Any = (RayError, ConnectionError, TimeoutError)
    try:
        try:
            with _hushed():
                ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        except Exception as error:  # Ray has no class for it
            raise RunError(f"predict: Ray could not be started or reached ({first_line(error)}); see "
                           "RAY_ADDRESS, or whether the machine is too busy") from error  # fmt: skip
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield ray
    except errors as error:
        raise _plain(error) from error
    finally:
        ray.shutdown()


@contextmanager
def _ctrl_c() -> Iterator[None]:
    """KeyboardInterrupt after Ctrl-C, whatever Ray made of it."""
    pressed: list[int] = []

    def press(number: int, frame: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press) if threading.current_thread() is threading.main_thread() else None
    try:
        yield
    except BaseException as error:
        if pressed and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _hushed() -> Iterator[None]:
    """Ray's own core announces its settings on the error stream, past Python; what fails is raised as well."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _plain(error: BaseException) -> ConvscopeError:
    """What a worker said, if it was one of our own errors, else that the cluster failed, and how."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConvscopeError):
            return type(cause)(str(cause))
        cause = getattr(cause, "cause", None) or cause.__cause__
    said = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no message")
    return RunError(f"predict: the cluster failed ({type(error).__name__}: {said[:200]}); the files in --out are "
                    "whole, and lack the pictures that were still to come")  # fmt: skip
