"""What verbs share: their arguments, what they print, and how text becomes sizes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from convscope.errors import InputError
from convscope.table import printable, to_json

Model = Annotated[str, typer.Argument(help="Which network.", metavar="MODEL")]
Image = Annotated[str, typer.Argument(help="Which picture.", metavar="IMAGE")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]
Input = Annotated[str | None, typer.Option("--input", help="Input shape, where the network does not say: 3x224x224.")]
Truncated = Annotated[bool, typer.Option("--allow-truncated", help="Show what is left of a cut or damaged file.")]
Out = Annotated[Path, typer.Option(help="Where to write.")]

MOST = 2**31 - 1  # of any size, stride or index on the command line


def recorded(
    model: str, image: str, layers: Iterable[str] | None, input: str | None, *, allow_truncated: bool = False
) -> Any:
    """The model's recording on a picture, with the tensors of the layers (all, if None) kept."""
    from convscope.data.named import open_picture
    from convscope.graph import record
    from convscope.runs.loaded import load_model

    loaded = load_model(model, shape=parse_shape(input))
    warn_if_untrained(loaded)
    x, notes = loaded.prepare(open_picture(image, allow_truncated=allow_truncated))
    say(*notes)
    if layers is None:
        return record(loaded.model, x, keep=lambda op: True)
    recording = record(loaded.model, x)
    for _ in range(2):  # with values, attention runs other operators than without
        ops = [recording.find(layer) for layer in layers]
        if all(v.id in recording.kept for op in ops for v in op.outputs):
            break
        wanted = {(op.module, op.name) for op in ops}
        recording = record(loaded.model, x, keep=lambda op, wanted=wanted: (op.module, op.name) in wanted)
    return recording


def pictured(
    model: str, image: str | None, input: str | None, *, allow_truncated: bool = False
) -> tuple[Any, Any, Any]:
    """The network, its input, and the pixels behind it, HxWx3 from 0 to 1; zeros and None if no picture is given."""
    import torch

    from convscope.data.folder import resize
    from convscope.data.images import to_channels
    from convscope.data.named import open_picture
    from convscope.runs.loaded import load_model

    loaded = load_model(model, shape=parse_shape(input))
    if image is None:
        return loaded.model, torch.zeros(1, *loaded.shape), None
    picture = open_picture(image, allow_truncated=allow_truncated)
    x, notes = loaded.prepare(picture)
    say(*notes)
    pixels = torch.from_numpy(to_channels(picture, 3).pixels)
    return loaded.model, x, resize(pixels, size=x.shape[2:]).movedim(0, -1).numpy()


def warn_if_untrained(loaded: Any) -> None:
    if not loaded.trained:
        say(f"{loaded.spec} has fresh random weights; give a run folder to see a trained network")


def show(shown: Any, *, data: Any, json: bool) -> None:
    typer.echo(to_json(data) if json else str(shown))


def say(*messages: str) -> None:
    for message in messages:
        typer.echo("\n".join(map(printable, message.split("\n"))), err=True)


def say_written(path: Path) -> None:
    say(f"wrote {path}")


def target_file(path: Path, option: str = "--out", *, reads: str | None = None) -> Path:
    """The file, once it can be written; never the picture that is read."""
    check_target(path, option)
    if reads and path.exists() and Path(reads).exists() and path.samefile(reads):
        raise InputError(f"{path}: is the picture that is read, and would be lost; give another {option}")
    make_folder(path.parent, option)
    return path


def target_png(path: Path, *, reads: str | None = None) -> Path:
    target = target_file(path, reads=reads)
    if path.suffix.lower() != ".png" and not path.is_char_device():
        raise InputError(f"{path}: a PNG picture is written; let the name of --out end in .png")
    return target


def check_target(path: Path | None, option: str = "--out") -> None:
    """Refuse a file that cannot be written, before the work for it begins; no folder is made."""
    if path is None:
        return
    try:
        is_folder, above = path.is_dir(), next((p for p in path.absolute().parents if p.exists()), path)
    except (OSError, ValueError) as error:  # a name that no file can have, or no folder to be in
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be written ({reason}); give another {option}") from None
    if is_folder:
        raise InputError(f"{path}: is a folder, but a file is to be written; give another {option}")
    make_folder(above, option)


def make_folder(path: Path, option: str = "--out") -> Path:
    from convscope.files import writable_folder

    return writable_folder(path, option=option)


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    shape = None if text is None else parse_numbers(text, "x", option="--input")
    if shape and 0 in shape:
        raise InputError(f"--input: {text!r} has an axis of no elements; use 1 or more")
    return shape


def parse_pair(text: str) -> int | tuple[int, ...]:
    values = parse_numbers(text, "x", option="a size")
    if len(values) > 2:
        raise InputError(f"a size: {text!r} has {len(values)} numbers; give one, or height x width such as 5x3")
    return next(iter(values)) if len(values) == 1 else values


def parse_size(text: str, *, option: str) -> int | tuple[int, ...]:
    """One number for all axes, or one for each."""
    values = parse_numbers(text, "x", option=option)
    return values[0] if len(values) == 1 else values


def parse_numbers(text: str, separator: str, *, option: str) -> tuple[int, ...]:
    parts = text.split(separator)
    if not all(p.strip().isdecimal() for p in parts):
        raise InputError(f"{option}: {text!r} is not whole numbers; write some with {separator!r} between them")
    numbers = tuple(int(p) for p in parts)
    if max(numbers) > MOST:
        raise InputError(f"{option}: {text!r} holds a number above {MOST:,}; use a smaller one")
    return numbers
