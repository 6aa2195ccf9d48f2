"""optimize(): what is known to make a network faster, tried on this machine, and the best one kept as a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from convscope.clock import compare
from convscope.engines import ENDINGS, open_engine, output_names
from convscope.errors import InputError
from convscope.evaluate import evaluating, held_out
from convscope.files import writable_folder, write_whole
from convscope.optimize.bench import Bench, Clock
from convscope.optimize.candidates import Material
from convscope.optimize.progress import Progress, shown
from convscope.optimize.result import Optimised, chosen
from convscope.optimize.retrain import Teaching
from convscope.runs import open_run
from convscope.runs.loaded import LoadedModel
from convscope.tasks import score_of

PICTURES = 64


def optimize(  # noqa: PLR0913 - what a person may set
    loaded: LoadedModel,
    *,
    out: Path | None = None,
    data: str | None = None,
    max_drop: float = 0.5,
    batch_size: int = 1,
    retrain: float = 0.0,
    clock: Clock = compare,
    progress: bool = True,
) -> Optimised:
    """Try what is known to make a network faster at a batch size, and write the fastest that is right into `out`.

    Lossless candidates must give what the network gives, within 0.0001 of the largest output; numeric ones may lose
    `max_drop` points of the task's score on the test pictures of `data` (of the run's own, if it is a run), and are
    left out where no data are known. Structural ones may lose as much; they need a run, and `retrain` minutes each. All
    candidates of a stage take turns with the network in one run, and the best of all stages in a last one. `progress`
    shows how far it is on stderr.
    Raises: InputError if the network is an exported file; DataError if the data do not fit it.
    """
    if loaded.spec.endswith(ENDINGS):
        raise InputError(f"{loaded.spec}: is an exported network already; give the network that it was made from")
    loaded, known = loaded.on_cpu(), bool(data or loaded.data)
    images = held_out(loaded, data) if known else None
    with evaluating(loaded.model), shown(quiet=not progress) as told:
        x = loaded.examples(images, most=max(PICTURES, batch_size))
        card = loaded.card(output_names(loaded.model, x[:1]), data=data)
        batch = x.repeat(-(-batch_size // len(x)), 1, 1, 1)[:batch_size]
        training = held_out(loaded, data, part="train") if known else None
        teaching = _teaching(loaded, training, retrain, told)
        bench = Bench(loaded, x, batch, images, max_drop / 100, clock, teaching, told)
        judge = bench.judge(held_out(loaded, data, part="val")) if known else None
        rows = bench.stages(Material(loaded.model, batch, card, training=training, judge=judge))
    best = chosen(rows)
    files = _written(out, bench.made[best.candidate].files or {}) if out and best else ()
    score = score_of(loaded.task) if known else ""
    return Optimised(loaded.spec, batch_size, len(x), score, rows, files, bench.notes())


def load(path: Path | str) -> nn.Module:
    """The network in a file that `optimize` or `export` wrote, as a module; its `card` says how pictures enter it.

    Raises: ModelError if there is no such file, or it is damaged or not convscope's.
    """
    return open_engine(Path(path))


def _written(out: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """The files; the first is the one to open, and is written last."""
    writable_folder(out)
    return tuple(write_whole(out / name, content) for name, content in reversed([*files.items()]))[::-1]


def _teaching(loaded: LoadedModel, training: Any, minutes: float, progress: Progress) -> Teaching | None:
    """What changed networks learn from: only a run tells how."""
    if training is None or not minutes or not Path(loaded.spec).is_dir():
        return None
    return Teaching(training, open_run(loaded.spec).config, 60 * minutes, progress.learning)
