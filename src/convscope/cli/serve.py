"""Verb that serves a page to a browser on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.common import Input, parse_shape, say, target_file, warn_if_untrained


def lab(
    model: Annotated[str, typer.Argument(help="Which network.", metavar="[MODEL]")] = "LeNet5",
    image: Annotated[str, typer.Argument(help="Which picture.", metavar="[IMAGE]")] = "digits:0",
    input: Input = None,
    port: Annotated[
        int | None, typer.Option(help="Where to listen; the first free one from 8765 on.", min=0, max=65535)
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let other machines in, unencrypted.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write one .html file that needs no server, and end.", metavar="FILE")
    ] = None,
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Open a network in the browser: its maps, any value as its arithmetic, its fields on the picture."""
    import webbrowser

    from convscope.files import known_ending
    from convscope.lab import export_page, open_lab, serve

    shape = parse_shape(input)
    if export:
        known_ending(export, (".html", ".htm"), what="the page is", option="--export")
        loaded, path = export_page(model, image, str(target_file(export, "--export")), shape=shape)
        warn_if_untrained(loaded)
        typer.echo(f"{path}: {path.stat().st_size / 2**20:.1f} MiB; open it in a browser")
        return
    sock, door, opening = open_lab(model, image, shape=shape, host=host, port=port, allow_remote=allow_remote)
    if allow_remote:
        say("other machines may reach this page, and what they send is not encrypted")
    typer.echo(f"{model} on {image}: open {door.url}\nCtrl-C ends it")
    if open:
        webbrowser.open(door.url)
    opening.future.add_done_callback(lambda made: made.exception() or warn_if_untrained(made.result().loaded))
    serve(sock, door, opening)
