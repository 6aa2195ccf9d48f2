"""What `convscope inspect` does besides printing: recording, limits, sizes, files."""

from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscope.cli.common import parse_numbers, parse_shape, say_written, target_file
from convscope.errors import InputError, LimitError, ModelError

if TYPE_CHECKING:
    from torch import nn

    from convscope.graph import Recording
    from convscope.inspect import Budget, Summary


LIBRARIES = ("torchvision:", "timm:")  # that have networks by name


@dataclass(frozen=True, slots=True)
class Inspected:
    """A network that was recorded at certain input shapes."""

    title: str
    model: "nn.Module"
    shapes: tuple[tuple[int, ...], ...]
    recording: "Recording"
    summary: "Summary"


def inspected(spec: str, inputs: list[str] | None, *, batch: int = 1, advise: bool = False) -> Inspected:
    """The network recorded, with the memory of a training step where it can take one."""
    from convscope.graph import record
    from convscope.inspect import summarize

    given = [shape for text in inputs or () if (shape := parse_shape(text))]
    model, shapes, recording = _recorded(spec, given, batch)
    training, notes = None, advised(model, recording) if advise else ()
    if spec.startswith(LIBRARIES) and any(not p.is_meta for p in model.parameters()):
        notes += ("where values decide (which boxes are kept), they are those of fresh weights and an empty picture",)
    try:
        if recording.trainable:
            training = record(model, *_tensors(shapes), backward=True)
    except ModelError as error:
        notes += (f"memory of a training step is not known: {error}",)
    summary = summarize(recording, training=training)
    title = f"{spec}, input {', '.join('x'.join(map(str, s)) for s in summary.input_shapes)}"
    return Inspected(title, model, shapes, recording, replace(summary, notes=summary.notes + notes))


def _recorded(
    spec: str, given: list[tuple[int, ...]], batch: int
) -> tuple["nn.Module", tuple[tuple[int, ...], ...], "Recording"]:
    """The network, its input shapes and its recording; one of a library is made without values where that will do."""
    import torch

    from convscope import machine
    from convscope.graph import record

    of_library = spec.startswith(LIBRARIES)
    with machine.loading():
        from convscope.models import num_inputs, ready

    def made(place: AbstractContextManager[Any]) -> tuple["nn.Module", tuple[tuple[int, ...], ...], "Recording"]:
        with place, machine.loading(), machine.same_randomness():  # torchvision is among what is loaded here
            torch.manual_seed(0)  # what a detector proposes depends on its weights, if they are fresh
            shape = given[0] if given else None
            model, known = ready(spec, shape=shape) if of_library else _loaded(spec, shape)
        shapes = tuple((batch, *one) for one in given or [known] * num_inputs(spec))
        return model, shapes, record(model, *_tensors(shapes))

    if of_library and not spec.startswith("torchvision:quantized_"):
        with suppress(ModelError):  # whatever cannot do without values is made with them
            return made(torch.device("meta"))
    return made(nullcontext())


def _loaded(spec: str, shape: tuple[int, ...] | None) -> tuple["nn.Module", tuple[int, ...]]:
    """A network that runs or files may know of; what they know takes long to load."""
    from convscope.runs.loaded import load_model

    loaded = load_model(spec, shape=shape)
    return loaded.model, loaded.shape


def advised(model: "nn.Module", recording: "Recording") -> tuple[str, ...]:
    """Wasted work, channels that cannot matter, branches out of line, and the least picture that the network takes."""
    from convscope.inspect import advice, dead_channels, least_input, misaligned

    sentences = (*advice(recording), *map(str, dead_channels(recording, model)), *misaligned(recording).sentences)
    if len(recording.inputs) == 1 and len(recording.inputs[0].shape) == 4:
        side = least_input(model, channels=recording.inputs[0].shape[1])
        sentences += (f"the least input is {side}x{side}",) if side else ()
    return sentences


def at_sizes(seen: Inspected, text: str) -> Any:
    """The network at other sizes: 224,256 or 224x320."""
    from convscope.inspect import sizes

    sides = [parse_numbers(part, "x", option="--sizes") for part in text.split(",")]
    if any(len(side) > 2 or 0 in side for side in sides):
        raise InputError(f"--sizes: {text!r} has a size that is no height x width; use such as 224,256 or 224x320")
    start = seen.recording.inputs[0].shape
    if len(start) < 4:
        shape = "x".join(map(str, start))
        raise InputError(f"--sizes: the input is {shape}, which has no height and width; leave --sizes out")
    shapes = [(*start[:-2], side[0], side[-1]) for side in sides]
    return sizes(seen.model, shapes, recording=seen.recording)


def write_files(seen: Inspected, *, html: Path | None, graph: Path | None, depth: int | None) -> None:
    """The page and the picture of the network."""
    from convscope.files import write_whole
    from convscope.inspect import draw, flow, page

    if html:
        text = page(seen.summary, seen.recording, title=seen.title, depth=depth)
        say_written(write_whole(target_file(html, "--html"), text))
    if graph:
        text = draw(flow(seen.recording, seen.summary, depth=depth), title=seen.title)
        say_written(write_whole(target_file(graph, "--graph"), text))


def keep_to(budget: "Budget", summary: "Summary") -> None:
    """Raises: LimitError with one sentence for each limit that is broken."""
    broken = budget.broken(summary)
    if broken:
        raise LimitError("\n".join(broken))


def _tensors(shapes: tuple[tuple[int, ...], ...]) -> list[Any]:
    import torch

    return [torch.zeros(shape) for shape in shapes]
