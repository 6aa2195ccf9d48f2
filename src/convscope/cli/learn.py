"""Verbs that train a network and use what was trained."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from convscope import machine
from convscope.cli.common import (
    Input,
    Json,
    Model,
    make_folder,
    parse_shape,
    say,
    say_written,
    show,
    target_file,
    warn_if_untrained,
)
from convscope.errors import InputError
from convscope.table import Column, Table


def train(
    task: Annotated[
        str,
        typer.Argument(help="What is learnt: classify, detect, segment, or several: detect,segment.", metavar="TASK"),
    ],
    data: Annotated[str | None, typer.Option(help="digits or scenes, or a folder (see docs/data.md).")] = None,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Keep class folders without pictures.")] = False,
    model: Annotated[str | None, typer.Option(help="Which network (LeNet5) or backbone (small).")] = None,
    weights: Annotated[str | None, typer.Option(help="A file of weights to begin with.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training pictures.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train about so long, in place of --epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation (0).")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda (auto).")] = None,
    set: Annotated[list[str] | None, typer.Option(help="Any setting: --set weight_decay=0.1; repeat for more.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder (runs/TASK).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    override: Annotated[bool, typer.Option("--override", help="Resume although settings differ.")] = False,
    find_lr: Annotated[bool, typer.Option("--find-lr", help="Only try which --lr to begin with, and draw it.")] = False,
    json: Json = False,
) -> None:
    """Train a network; leaves a run folder that every other command takes as MODEL. --resume keeps its settings."""
    from convscope.runs import open_run, resolve
    from convscope.runs.config import in_order
    from convscope.train import train

    out = out or Path("runs", in_order(task).replace(",", "-"))
    flags = {"task": task, "data": data, "model": model, "weights": weights, "epochs": epochs, "minutes": minutes}
    flags |= {"batch_size": batch_size, "lr": lr, "seed": seed, "device": device, "allow_empty": allow_empty or None}
    leads = machine.rank() == 0  # of several processes, only this one needs the folder
    defaults = open_run(out).config.model_dump() if resume and leads else machine.training_defaults()
    settings = resolve(flags, set or (), file=config, defaults=defaults)
    if find_lr:
        _find_lr(settings, out=out, json=json)
        return
    run = train(settings, out=out, resume=resume, override=override)
    if not leads:
        return
    last = run.metrics()[-1]
    shown = Table(tuple(Column(k, k.replace("_", " ")) for k in last), (last,), title=str(run.folder))
    show(shown, data={"run": str(run.folder), "last_epoch": last}, json=json)
    say(f"next: convscope evaluate {run.folder}")


def _find_lr(settings: Any, *, out: Path, json: bool) -> None:
    from convscope.files import figure_path, write_figure
    from convscope.train import find_lr

    picture = figure_path(out / "learning-rates.png")
    make_folder(out)
    found = find_lr(settings)
    show(found.table(), data=found.data(), json=json)
    say_written(write_figure(found.picture(), picture))


def evaluate(
    run: Annotated[str, typer.Argument(help="A run folder.", metavar="RUN")],
    data: Annotated[str | None, typer.Option(help="Other data than the run's own test part.")] = None,
    json: Json = False,
) -> None:
    """Measure a trained network on its test pictures, and write report.html into its folder."""
    from convscope.evaluate import evaluate_run
    from convscope.report import write_report

    measured = evaluate_run(run, data=data)
    say(*getattr(measured.model, "notes", ()))
    show(measured.evaluation.table(), data=measured.evaluation.data(), json=json)
    if data is None and measured.run:
        say_written(write_report(run, measured).path)


def predict(
    model: Model,
    images: Annotated[
        list[str], typer.Argument(help="Which pictures: files, folders, patterns, videos.", metavar="IMAGE...")
    ],
    top: Annotated[int, typer.Option(help="How many classes a picture.", min=1)] = 5,
    threshold: Annotated[float, typer.Option(help="Least score of an object.", min=0, max=1)] = 0.4,
    every: Annotated[int, typer.Option(help="Of a video, each so-many-th frame.", min=1)] = 1,
    out: Annotated[
        Path | None, typer.Option(help="A folder for drawn pictures, JSON, CSV and COCO, or a .parquet file.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="ray: very many pictures, on many cores or machines, into Parquet in --out.")
    ] = None,
    json: Json = False,
) -> None:
    """The classes of pictures, the objects in them, or the classes of their pixels, as the network has learnt."""
    from convscope.predict import Wish, predict_files
    from convscope.runs.loaded import load_model

    loaded = load_model(model)
    warn_if_untrained(loaded)
    say(*getattr(loaded.model, "notes", ()))
    if engine is not None:
        _on_cluster(loaded, images, wish=Wish(top, threshold, every), engine=engine, out=out, json=json)
        return
    told, notes, written, damaged = predict_files(loaded, images, top=top, threshold=threshold, every=every, out=out)
    say(*notes)
    show(told.table(), data=told.data() | ({"damaged": [str(e) for e in damaged]} if damaged else {}), json=json)
    for path in written:
        say_written(path)
    if damaged:
        say(*(f"convscope: {error}" for error in damaged))
        raise typer.Exit(2)


def _on_cluster(loaded: Any, images: list[str], *, wish: Any, engine: str, out: Path | None, json: bool) -> None:
    from convscope.predict import predict_on_cluster

    if engine != "ray":
        raise InputError(f"--engine {engine!r}: is none; use ray, or leave it out")
    if out is None:
        raise InputError("--engine ray: has nowhere to write; give a folder as --out")
    try:
        done = predict_on_cluster(loaded, images, out=out, wish=wish, watch=_watched)
    except KeyboardInterrupt:
        say(f"stopped; the files in {out} are whole, and lack what was still to come")
        raise
    show(done.table(), data=done.data(), json=json)


def _watched(batches: Iterable[Any], files: int) -> Iterable[Any]:
    """A bar on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield from batches
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("predicting", total=files)
        for batch in batches:
            yield batch
            bars.advance(bar, batch["files"])


def export(
    model: Annotated[str, typer.Argument(help="A run folder, or any network.", metavar="MODEL")],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, .xml (OpenVINO), .fused or .pt2 (torch.export).")],
    data: Annotated[str | None, typer.Option(help="Test pictures to compare on, if not the run's own.")] = None,
    input: Input = None,
    json: Json = False,
) -> None:
    """Write a network as a file that other programs run; it is run and compared before it is kept."""
    from convscope.export import export
    from convscope.runs.loaded import load_model

    target_file(out)
    loaded = load_model(model, shape=parse_shape(input))
    warn_if_untrained(loaded)
    done = export(loaded, out, data=data)
    show(done.table(), data=done.data(), json=json)
