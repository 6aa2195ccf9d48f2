"""The command line: each command parses, calls and prints. torch is not imported before a command needs it."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convscope import __version__, machine
from convscope.errors import ConvscopeError, InputError
from convscope.table import Column, Table, to_json

if TYPE_CHECKING:
    from convscope.graph import Op

app = typer.Typer(
    name="convscope",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build, see, train and speed up convolutional neural networks.",
    epilog="MODEL is LeNet5, ConvNet3, torchvision:NAME, timm:NAME, package.module:function, or a run folder. "
    "IMAGE is a file, digits:N (a handwritten test digit), flower or china (photographs).",
)

Model = Annotated[str, typer.Argument(help="Which network.", metavar="MODEL")]
Image = Annotated[str, typer.Argument(help="Which picture.", metavar="IMAGE")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]
Input = Annotated[str | None, typer.Option("--input", help="Input shape, where the network does not say: 3x224x224.")]
MOST = 2**31 - 1  # of any size, stride or index on the command line

Out = Annotated[Path, typer.Option(help="Where to write.")]


def main() -> None:
    """Run the command line; bad input exits with 2, failed work with 1, both with one sentence."""
    debug = "--debug" in sys.argv
    try:
        app([a for a in sys.argv[1:] if a != "--debug"])
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            raise
        sys.exit(_said(error))


def _said(error: BaseException) -> int:
    """Print what went wrong in one sentence; the exit code."""
    if isinstance(error, BrokenPipeError):  # whoever read our output has stopped
        sys.stderr.close()
        return 1
    if isinstance(error, KeyboardInterrupt):
        _say("stopped")
        return 130
    if isinstance(error, ConvscopeError):
        _say(f"convscope: {error}")
        return error.exit_code
    _say(f"convscope: internal error: {type(error).__name__}: {error} (--debug shows where; please report it)")
    return 1


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"convscope {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    machine.tune()


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(help="Passes over the training digits.", min=1)] = 60,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the augmentation.", min=0)] = 0,
) -> None:
    """Train LeNet5 on handwritten digits, look inside it, and write a report."""
    from convscope.demo import run_demo

    for line in run_demo(out, epochs=epochs, seed=seed):
        typer.echo(line)


@app.command()
def env(json: Json = False) -> None:
    """Say what this machine is, what is installed, and what the tuned start chose."""
    facts = machine.describe()
    rows = tuple({"what": k, "value": v} for k, v in facts.items())
    _print(Table((Column("what", "what"), Column("value", "value")), rows), data=facts, json=json)


@app.command()
def convolve(
    image: Annotated[str, typer.Argument(help="Which picture.", metavar="[IMAGE]")] = "flower",
    kernel: Annotated[
        str | None, typer.Option(help='A name (sobel-x if none is given), or rows: "1 0 -1; 2 0 -2; 1 0 -1".')
    ] = None,
    channels: Annotated[
        str, typer.Option(help="A kernel by hand filters `each` channel, or adds them: `sum`.")
    ] = "each",
    out_channels: Annotated[list[int] | None, typer.Option(help="Random kernels; repeat for a second layer.")] = None,
    kernel_size: Annotated[str, typer.Option(help="Of random kernels: 3, or height x width: 5x3.")] = "3",
    stride: Annotated[str, typer.Option(help="2, or 2x1.")] = "1",
    padding: Annotated[str, typer.Option(help="1, or 2x1.")] = "0",
    dilation: Annotated[str, typer.Option(help="2, or 2x1.")] = "1",
    seed: Annotated[int, typer.Option(help="Of random kernels.", min=0)] = 0,
    out: Out = Path("convolved.png"),
    json: Json = False,
) -> None:
    """Convolve a picture with a kernel; print the shapes with their formula and draw the feature maps."""
    from convscope.convolve import ConvSpec, convolve
    from convscope.data.named import open_picture
    from convscope.explain.pictures import grid, save_png

    shared: dict[str, Any] = {"stride": _pair(stride), "padding": _pair(padding), "dilation": _pair(dilation)}
    size: Any = _pair(kernel_size)
    by_hand = "sobel-x" if kernel is None and not out_channels else kernel
    layers = [ConvSpec(kernel=by_hand, channels=channels, **shared)] if by_hand is not None else []  # pyright: ignore[reportArgumentType]
    layers += [ConvSpec(out_channels=n, kernel_size=size, **shared) for n in out_channels or ()]
    target = _target(out)
    done = convolve(open_picture(image), layers, seed=seed)
    _drawn(save_png(grid(done.output[0].numpy(), title=f"{image}: {done.steps[-1].name}"), target))
    table = done.table()
    _print(table, data={"layers": table.rows, "picture": str(out)}, json=json)


@app.command()
def inspect(model: Model, input: Input = None, json: Json = False) -> None:
    """Print every operator of a network: output shape, parameters, MACs, receptive field."""
    import torch

    from convscope.graph import record
    from convscope.inspect import summarize
    from convscope.runs.loaded import load_model

    loaded = load_model(model, shape=_shape(input))
    summary = summarize(record(loaded.model, torch.zeros(1, *loaded.shape)))
    title = f"{model}, input {'x'.join(map(str, summary.input_shapes[0]))}"
    _print(summary.table(title=title), data={"model": model, **summary.data()}, json=json)


@app.command()
def features(
    model: Model,
    image: Image,
    layer: Annotated[list[str] | None, typer.Option(help="Only these layers (C3, features.C3, 4).")] = None,
    input: Input = None,
    out: Out = Path("features"),
    json: Json = False,
) -> None:
    """Draw the feature maps of one picture in every layer, and save their numbers."""
    from convscope.explain import feature_maps, save_maps

    folder = _folder(out)
    maps = feature_maps(_recorded(model, image, layer, input))
    files = save_maps(maps, folder)
    rows = tuple({"layer": m.name, "shape": m.maps.shape, "file": str(f)} for m, f in zip(maps, files, strict=False))
    table = Table((Column("layer", "layer"), Column("shape", "maps"), Column("file", "picture")), rows)
    _print(table, data={"layers": rows, "values": str(files[-1])}, json=json)


@app.command()
def explain(
    model: Model,
    image: Image,
    layer: Annotated[str | None, typer.Option(help="Which layer: C3, features.C3, or an operator's number.")] = None,
    unit: Annotated[str | None, typer.Option(help="Which value: sample,channel,row,column, such as 0,5,3,4.")] = None,
    depth: Annotated[
        int | None, typer.Option(help="Follow the largest terms so many operators down to the pixels.", min=1)
    ] = None,
    breadth: Annotated[int, typer.Option(help="How many terms of each value --depth follows.", min=1)] = 3,
    first_nan: Annotated[bool, typer.Option("--first-nan", help="Find the operator that made the first NaN.")] = False,
    input: Input = None,
    json: Json = False,
) -> None:
    """Show the terms that were combined to make one value of a layer."""
    from convscope.explain import explain, trace

    if first_nan:
        _print_first_nan(_recorded(model, image, None, input), json=json)
        return
    if layer is None or unit is None:
        raise InputError("explain: which value is not said; give --layer and --unit, or --first-nan")
    recording = _recorded(model, image, None if depth else [layer], input)
    at = _numbers(unit, ",", option="--unit")
    if depth:
        told: Any = trace(recording, layer, unit=at, depth=depth, breadth=breadth)
    else:
        told = explain(recording, layer, unit=at)
    _print(told, data=told.data(), json=json)


def _print_first_nan(recording: Any, *, json: bool) -> None:
    from convscope.explain import first_nan

    op = first_nan(recording)
    data = {"op": op and op.name, "layer": op and op.module, "index": op and op.index}
    found = f"the first NaN or infinity comes from operator {op.index}: {op.name}" if op else "no NaN, no infinity"
    _print(f"{found} in {op.module}" if op and op.module else found, data=data, json=json)


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="What is learnt: classify.", metavar="TASK")],
    data: Annotated[str | None, typer.Option(help="digits, or a folder of class folders.")] = None,
    model: Annotated[str | None, typer.Option(help="Which network (LeNet5).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training pictures (60).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step (64).")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate (0.003).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation (0).")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda (auto).")] = None,
    set: Annotated[list[str] | None, typer.Option(help="Any setting: --set weight_decay=0.1; repeat for more.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    out: Out = Path("runs/classify"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    override: Annotated[bool, typer.Option("--override", help="Resume although settings differ.")] = False,
    json: Json = False,
) -> None:
    """Train a network; leaves a run folder that every other command takes as MODEL. --resume keeps its settings."""
    from convscope.runs import open_run, resolve
    from convscope.train import train

    flags = {"task": task, "data": data, "model": model, "epochs": epochs, "batch_size": batch_size}
    flags |= {"lr": lr, "seed": seed, "device": device}
    defaults = open_run(out).config.model_dump() if resume else machine.training_defaults()
    settings = resolve(flags, set or (), file=config, defaults=defaults)
    run = train(settings, out=out, resume=resume, override=override)
    last = run.metrics()[-1]
    shown = Table(tuple(Column(k, k.replace("_", " ")) for k in last), (last,), title=str(run.folder))
    _print(shown, data={"run": str(run.folder), "last_epoch": last}, json=json)
    _say(f"next: convscope evaluate {run.folder}")


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="A run folder.", metavar="RUN")],
    data: Annotated[str | None, typer.Option(help="Other data than the run's own test part.")] = None,
    json: Json = False,
) -> None:
    """Measure a trained network on its test pictures, and write report.html into its folder."""
    from convscope.evaluate import evaluate_run
    from convscope.report import write_report

    measured = evaluate_run(run, data=data)
    _print(measured.evaluation.table(), data=measured.evaluation.data(), json=json)
    if data is None:
        _drawn(write_report(run, measured).path)


@app.command()
def predict(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Which pictures.", metavar="IMAGE...")],
    top: Annotated[int, typer.Option(help="How many classes a picture.", min=1)] = 5,
    json: Json = False,
) -> None:
    """Classify pictures: the likeliest classes of each, with their probabilities."""
    import torch

    from convscope.data.named import open_picture
    from convscope.predict import predict
    from convscope.runs.loaded import load_model

    loaded = load_model(model)
    _warn_if_untrained(loaded)
    prepared = [loaded.prepare(open_picture(i)) for i in images]
    _say(*dict.fromkeys(note for _, notes in prepared for note in notes))
    x = torch.cat([x for x, _ in prepared])
    told = predict(loaded.model, x, classes=loaded.class_names(), names=images, top=top)
    _print(told.table(), data=told.data(), json=json)


def _recorded(model: str, image: str, layers: Iterable[str] | None, input: str | None) -> Any:
    """The model's recording on a picture, with the tensors of the layers (all, if None) kept."""
    from convscope.data.named import open_picture
    from convscope.graph import record
    from convscope.runs.loaded import load_model

    loaded = load_model(model, shape=_shape(input))
    _warn_if_untrained(loaded)
    x, notes = loaded.prepare(open_picture(image))
    _say(*notes)
    if layers is None:
        return record(loaded.model, x, keep=lambda op: True)
    plan = record(loaded.model, x)
    wanted = {(op.module, op.name) for op in (plan.find(layer) for layer in layers)}

    def keep(op: "Op") -> bool:
        return (op.module, op.name) in wanted

    return record(loaded.model, x, keep=keep)


def _warn_if_untrained(loaded: Any) -> None:
    if not loaded.trained:
        _say(f"{loaded.spec} has fresh random weights; give a run folder to see a trained network")


def _print(shown: Any, *, data: Any, json: bool) -> None:
    typer.echo(to_json(data) if json else str(shown))


def _say(*messages: str) -> None:
    for message in messages:
        typer.echo(message, err=True)


def _drawn(path: Path) -> None:
    _say(f"wrote {path}")


def _target(path: Path) -> Path:
    _folder(path.parent)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, but a file is to be written; give another --out")
    return path


def _folder(path: Path) -> Path:
    from convscope.files import writable_folder

    return writable_folder(path)


def _shape(text: str | None) -> tuple[int, ...] | None:
    shape = None if text is None else _numbers(text, "x", option="--input")
    if shape and 0 in shape:
        raise InputError(f"--input: {text!r} has an axis of no elements; use 1 or more")
    return shape


def _pair(text: str) -> int | tuple[int, ...]:
    values = _numbers(text, "x", option="a size")
    if len(values) > 2:
        raise InputError(f"a size: {text!r} has {len(values)} numbers; give one, or height x width such as 5x3")
    return next(iter(values)) if len(values) == 1 else values


def _numbers(text: str, separator: str, *, option: str) -> tuple[int, ...]:
    parts = text.split(separator)
    if not all(p.strip().isdecimal() for p in parts):
        raise InputError(f"{option}: {text!r} is not whole numbers with {separator!r} between them")
    numbers = tuple(int(p) for p in parts)
    if max(numbers) > MOST:
        raise InputError(f"{option}: {text!r} holds a number above {MOST:,}; use a smaller one")
    return numbers


if __name__ == "__main__":
    main()
