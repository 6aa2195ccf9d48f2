"""The command line: each command parses, calls and prints. torch is not imported before a command needs it."""

import errno
import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from convscope import __version__, files, machine
from convscope.cli import data, learn, look, serve, speed, start, steps, why
from convscope.cli.common import say
from convscope.errors import ConvscopeError, InputError, out_of_memory

WIDEST = 1000  # letters of a line: a help as wide as a number says would fill the memory
WRONG_PATH = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


class _InOrder(TyperGroup):
    """Verbs in the order of `VERBS`, those with verbs of their own among the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [verb.info.name or "" if isinstance(verb, typer.Typer) else verb.__name__ for verb in VERBS]


app = typer.Typer(
    name="convscope",
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build, see, train and speed up convolutional neural networks.",
    epilog="MODEL is LeNet5, ConvNet3, torchvision:NAME, timm:NAME, imagenet:efficientnet_lite0, "
    "package.module:function, a run folder, or an exported file. "
    "IMAGE is a file, digits:N (a handwritten test digit), flower, china, coffee, chelsea, ... (photographs).",
)

VERBS = (
    start.demo,
    serve.lab,
    look.convolve,
    look.family,
    look.inspect,
    look.field,
    look.features,
    steps.explain,
    why.attribute,
    why.patches,
    why.visualise,
    data.data,
    learn.train,
    learn.evaluate,
    learn.predict,
    learn.export,
    speed.profile,
    speed.optimize,
    start.env,
)


def main() -> None:
    """Run the command line; bad input exits with 2, failed work with 1, both with one sentence."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # whatever the terminal's letters, none ends a command
            stream.reconfigure(errors="backslashreplace")
    if not os.environ.get("COLUMNS", "80").isdecimal() or not 20 <= int(os.environ.get("COLUMNS", "80")) <= WIDEST:
        del os.environ["COLUMNS"]
    try:
        if _folder_is_gone():
            raise InputError("the current folder: is gone; go to one that is there")
        app([a for a in sys.argv[1:] if a != "--debug"], prog_name="convscope")
    except SystemExit as end:
        if end.code:
            files.take_back()
        raise
    except (KeyboardInterrupt, Exception) as error:
        files.take_back()
        if debug:
            raise
        sys.exit(_said(error))


def _said(error: BaseException) -> int:
    """Print what went wrong in one sentence; the exit code."""
    if isinstance(error, BrokenPipeError):  # whoever read our output has stopped
        sys.stderr.close()
        return 1
    if isinstance(error, KeyboardInterrupt):
        say("stopped")
        return 130
    if isinstance(error, ConvscopeError):
        if not error.quiet:
            say(f"convscope: {error}")
        return error.exit_code
    if isinstance(error, OSError):  # of a path that nobody looked at before it was used, or of the output
        where = "the output" if error.filename is None else os.fsdecode(error.filename)
        wrong = error.errno in WRONG_PATH
        remedy = "check the path and its permissions" if wrong else "free what it needs, or name another place"
        say(f"convscope: {where}: {error.strerror or error}; {remedy}")
        return 2 if wrong else 1
    if out_of_memory(error):
        say("convscope: memory ran out; use a smaller size, or fewer at a time")
        return 1
    say(f"convscope: internal error: {type(error).__name__}: {error} (--debug shows where; please report it)")
    return 1


def _folder_is_gone() -> bool:
    """Whether the folder that the process stands in was removed; torch's libraries end a process that stands there."""
    try:
        return not os.getcwd()  # noqa: PTH109 - a path would hide the error
    except OSError:
        return True


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


for _verb in VERBS:
    if isinstance(_verb, typer.Typer):
        app.add_typer(_verb)
    else:
        app.command()(_verb)
