"""`data`: what is wrong with a data set, and what it looks like, before anything is learnt from it."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from convscope.cli.common import MOST, Json, Out, parse_shape, say, say_written, show, target_png

Task = Annotated[str | None, typer.Option(help="classify, detect or segment (what its format usually teaches).")]

data = typer.Typer(name="data", no_args_is_help=True, help="Check a data set, and look at it, before training.")


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures and labels.", metavar="DIR")],
    task: Task = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Class folders without pictures are right.")
    ] = False,
    json: Json = False,
) -> None:
    """List all that is wrong with a folder, where, and how to mend it; exit code 2 if training would stop at it."""
    from convscope.data import check

    report = check(folder, task=task, allow_empty=allow_empty, watch=_watched)
    show(report.table(), data=report.data(), json=json)
    if not report.clean:
        raise typer.Exit(2)


@data.command("show")
def show_samples(
    source: Annotated[str, typer.Argument(help="A folder, digits or scenes.", metavar="DATA")],
    task: Task = None,
    count: Annotated[int, typer.Option(help="How many samples.", min=1, max=64)] = 12,
    input: Annotated[str | None, typer.Option("--input", help="Shape they are brought to: 3x128x128.")] = None,
    augmented: Annotated[bool, typer.Option("--augmented", help="As augmentation shows them to the network.")] = False,
    seed: Annotated[int, typer.Option(help="Of the choice and of the augmentation.", min=0, max=MOST)] = 0,
    out: Out = Path("samples.png"),
) -> None:
    """Draw samples with their labels, as they enter a network."""
    from convscope.data import some
    from convscope.explain.pictures import save_png
    from convscope.predict.sheet import sheet

    target_png(out)
    samples, told = some(source, task=task, count=count, shape=parse_shape(input), seed=seed)
    say(told)
    say_written(save_png(sheet(samples, augmented=augmented, seed=seed), out))


def _watched(work: list[Any]) -> Iterable[Any]:
    """A bar on a terminal, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import track

    return track(work, "reading", console=Console(stderr=True)) if sys.stderr.isatty() else work
