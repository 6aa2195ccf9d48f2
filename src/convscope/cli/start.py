"""Verbs for the first minute: everything once, and what this machine is."""

from pathlib import Path
from typing import Annotated

import typer

from convscope import machine
from convscope.cli.common import MOST, Json, Out, show
from convscope.table import Column, Table


def demo(
    out: Out = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(help="Passes over the training digits.", min=1, max=MOST)] = 60,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the augmentation.", min=0, max=MOST)] = 0,
) -> None:
    """Train LeNet5 on handwritten digits, look inside it, and write a report."""
    from convscope.demo import run_demo

    for line in run_demo(out, epochs=epochs, seed=seed):
        typer.echo(line)


def env(
    json: Json = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the machine's limits anew and show them.")
    ] = False,
) -> None:
    """Say what this machine is, what is installed, and what the tuned start chose."""
    if measure:
        machine.tune()
        from convscope.clock import limits

        found = limits(anew=True)
        show(found.table(), data=found.data(), json=json)
        return
    facts = machine.describe()
    rows = tuple({"what": k, "value": v} for k, v in facts.items())
    show(Table((Column("what", "what"), Column("value", "value")), rows), data=facts, json=json)
