"""export(): a network as a file that other programs run, written once it has been run and gives the same."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convscope.engines import (
    Card,
    FusedModel,
    exported_bytes,
    named_outputs,
    onnx_bytes,
    open_engine,
    openvino_bytes,
    output_names,
    program_of,
)
from convscope.errors import InputError, RunError
from convscope.evaluate import EVALUATIONS, evaluating, held_out
from convscope.files import write_whole
from convscope.runs.loaded import LoadedModel
from convscope.table import Column, Table
from convscope.tasks import score_of

CLOSE = 1e-3  # largest difference from the network, as a share of the largest value of an output
SCORES = 1e-3  # largest difference of the measured score
PICTURES = 64

Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One output of the exported network beside the network's own: its largest value and largest difference."""

    output: str
    shape: tuple[int, ...]
    largest: float
    difference: float

    @property
    def relative(self) -> float:
        """The difference as a share of the largest value."""
        return self.difference / self.largest if self.largest else self.difference


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, how the outputs agree over `num_images` pictures, and both scores where data are known."""

    files: tuple[Path, ...]
    bytes: int
    num_images: int
    agreement: tuple[Agreement, ...]
    score: str = ""
    scores: tuple[float, float] | None = None

    def table(self) -> Table:
        """A row an output."""
        columns = (
            Column("output", "output"),
            Column("shape", "shape"),
            Column("largest", "largest value"),
            Column("difference", "largest difference"),
        )
        notes = [f"compared on {self.num_images} pictures; {self.bytes / 2**20:.2f} MiB"]
        if self.scores:
            notes.append(f"{self.score}: {self.scores[0]:.4f} as trained, {self.scores[1]:.4f} as exported")
        rows = tuple(asdict(a) for a in self.agreement)
        return Table(columns, rows, title=", ".join(map(str, self.files)), notes=tuple(notes))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"files": [str(f) for f in self.files]}


def export(loaded: LoadedModel, path: Path, *, data: str | None = None) -> Exported:
    """Write a network as ONNX (.onnx), OpenVINO (.xml and .bin), our own (.fused) or torch.export (.pt2), by the ending
    of `path`.

    The file is run before it takes its name: its outputs must agree with the network's on real pictures, and the
    score on the test pictures of `data` (of the run's own, if it is a run) must be the same within 0.001.
    Raises: InputError if the ending is none of these; ModelError if the network cannot be exported; RunError if the
    exported network does not agree, and then nothing is written.
    """
    make = FORMATS.get(path.suffix)
    if make is None:
        ending = path.suffix or "a name without an ending"
        raise InputError(
            f"{path}: export to .onnx, .xml (OpenVINO), .fused (convscope) or .pt2 (torch.export), not {ending}"
        )
    loaded = loaded.on_cpu()
    images = held_out(loaded, data) if data or loaded.data else None
    x_NCHW = loaded.examples(images, most=PICTURES)
    with evaluating(loaded.model):
        card = loaded.card(output_names(loaded.model, x_NCHW[:1]), data=data)
        files = make(path, loaded.model, x_NCHW[:2], card)
        with tempfile.TemporaryDirectory() as folder:
            there = [_put(Path(folder) / name, content) for name, content in files.items()]
            engine = open_engine(there[0], trusted=True)
            agreement = _agreement(loaded.model, engine, x_NCHW)
            scores = _scores(loaded, engine, images)
    _refuse_difference(path, agreement, scores)
    written = tuple(write_whole(path.with_name(name), content) for name, content in reversed([*files.items()]))[::-1]
    size = sum(map(len, files.values()))
    return Exported(written, size, len(x_NCHW), agreement, score_of(loaded.task) if scores else "", scores)


def _onnx(path: Path, model: nn.Module, example: Tensor, card: Card) -> Files:
    return {path.name: onnx_bytes(model, example, card)}


def _openvino(path: Path, model: nn.Module, example: Tensor, card: Card) -> Files:
    graph, weights = openvino_bytes(model, example, card)
    return {path.name: graph, path.with_suffix(".bin").name: weights}


def _fused(path: Path, model: nn.Module, example: Tensor, card: Card) -> Files:
    return {path.name: FusedModel(program_of(model, example), card, batch=1).content()}


def _torch(path: Path, model: nn.Module, example: Tensor, card: Card) -> Files:
    return {path.name: exported_bytes(model, example, card)}


FORMATS: Mapping[str, Callable[[Path, nn.Module, Tensor, Card], Files]] = {
    ".onnx": _onnx, ".xml": _openvino, ".fused": _fused, ".pt2": _torch,
}  # fmt: skip


def _put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _agreement(model: nn.Module, engine: nn.Module, x_NCHW: Tensor) -> tuple[Agreement, ...]:
    own, others = named_outputs(model(x_NCHW)), named_outputs(engine(x_NCHW))
    return tuple(
        Agreement(name, tuple(t.shape), float(t.abs().max()), float((t.float() - others[name].float()).abs().max()))
        for name, t in own.items()
    )


def _scores(loaded: LoadedModel, engine: nn.Module, images: Any) -> tuple[float, float] | None:
    if images is None:
        return None
    measured = (EVALUATIONS[loaded.task](m, images) for m in (loaded.model, engine))
    own, other = (float(getattr(m, score_of(loaded.task))) for m in measured)
    return own, other


def _refuse_difference(path: Path, agreement: tuple[Agreement, ...], scores: tuple[float, float] | None) -> None:
    worst = max(agreement, key=lambda a: a.relative)
    said = ""
    if not worst.relative <= CLOSE:
        said = f"differs by {worst.difference:.3g} in {worst.output}, whose largest value is {worst.largest:.3g}"
    elif scores and not abs(scores[0] - scores[1]) <= SCORES:
        said = f"scores {scores[1]:.4f} where the network scores {scores[0]:.4f}"
    if said:
        raise RunError(f"{path}: the exported network {said}; nothing was written, try another format")
