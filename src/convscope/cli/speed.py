"""Verbs about time: where a network's goes."""

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.common import Input, Json, Model, parse_shape, say, say_written, show, target_file
from convscope.table import Table


def profile(
    model: Model,
    input: Input = None,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="How often the network is timed.", min=3)] = 10,
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
    from convscope.runs.loaded import load_model

    pictures = [(target_file(file), draw) for file, draw in ((roofline, "roofline"), (flame, "flame")) if file]
    loaded = load_model(model, shape=parse_shape(input))
    x = torch.randn(batch_size, *loaded.shape)
    say("timing: the machine should have nothing else to do")
    found = timing.profile(loaded.model.eval(), x, limits=limits(), rounds=rounds)
    told = timing.advise(found, loaded.model, x) if advice else ()
    for file, draw in pictures:
        say_written(timing.save(getattr(timing, draw)(found), file))
    text: list[Table] = [found.table(title=f"{model}, batch {batch_size}", top=top or None)]
    text += [timing.table_of(told, whole=found.whole.median)] if advice else []
    show("\n\n".join(map(str, text)), data=found.data() | {"advice": [a.data() for a in told]}, json=json)
