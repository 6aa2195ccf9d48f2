"""Verbs about time: where a network's goes, and how it takes less."""

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.common import (
    MOST,
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
from convscope.table import Table


def profile(
    model: Model,
    input: Input = None,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="How often the network is timed.", min=3, max=MOST)] = 10,
    top: Annotated[int, typer.Option(help="How many operators are shown; 0: all.", min=0)] = 20,
    advice: Annotated[bool, typer.Option("--advice", help="Say what would make it faster, and by how much.")] = False,
    roofline: Annotated[Path | None, typer.Option(help="Draw every operator under the machine's limits.")] = None,
    flame: Annotated[Path | None, typer.Option(help="Draw where the time goes, module in module.")] = None,
    json: Json = False,
) -> None:
    """Time every operator of a network, beside the least that this machine allows."""
    import torch

    from convscope import profile as timing
    from convscope.clock import limits
    from convscope.files import figure_path, write_figure
    from convscope.runs.loaded import load_model

    wanted = {"roofline": roofline, "flame": flame}
    pictures = [(target_file(figure_path(file), f"--{draw}"), draw) for draw, file in wanted.items() if file]
    loaded = load_model(model, shape=parse_shape(input))
    x = torch.randn(batch_size, *loaded.shape)
    say("timing: the machine should have nothing else to do")
    found = timing.profile(loaded.model.eval(), x, limits=limits(), rounds=rounds)
    told = timing.advise(found, loaded.model, x) if advice else ()
    for file, draw in pictures:
        say_written(write_figure(getattr(timing, draw)(found), file))
    text: list[Table] = [found.table(title=f"{model}, batch {batch_size}", top=top or None)]
    text += [timing.table_of(told, whole=found.whole.median)] if advice else []
    show("\n\n".join(map(str, text)), data=found.data() | {"advice": [a.data() for a in told]}, json=json)


def optimize(
    model: Annotated[str, typer.Argument(help="A run folder, or any network.", metavar="MODEL")],
    data: Annotated[str | None, typer.Option(help="Pictures to measure on, if not the run's own.")] = None,
    max_drop: Annotated[float, typer.Option(help="Points of the score that may be lost.", min=0)] = 0.5,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 1,
    retrain: Annotated[
        float, typer.Option(help="Minutes that each changed structure of a run may learn.", min=0)
    ] = 0.75,
    out: Annotated[Path, typer.Option(help="Folder for the fastest file.")] = Path("optimized"),
    plot: Annotated[Path | None, typer.Option(help="Draw time against score (.png, .svg, .pdf).")] = None,
    input: Input = None,
    json: Json = False,
) -> None:
    """Try what makes a network faster on this machine, and keep the fastest that is as right as asked for."""
    from convscope.files import figure_path, write_figure
    from convscope.optimize import optimize
    from convscope.optimize.pictures import pareto
    from convscope.runs.loaded import load_model

    target = target_file(figure_path(plot), "--plot") if plot else None
    loaded = load_model(model, shape=parse_shape(input))
    warn_if_untrained(loaded)
    say("timing: the machine should have nothing else to do")
    settings = {"data": data, "max_drop": max_drop, "batch_size": batch_size, "retrain": retrain}
    found = optimize(loaded, out=make_folder(out), **settings)
    if target:
        say_written(write_figure(pareto(found), target))
    show(found.table(), data=found.data(), json=json)
