"""`explain`: one value of a network, and small convolutions step by step."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from convscope.cli.common import Json, parse_numbers, parse_pair, parse_shape, say_written, show, target_file
from convscope.cli.look import value

Shape = Annotated[str | None, typer.Option("--input", help="5x5 (rows x columns), or with channels first: 2x5x5.")]
Values = Annotated[str | None, typer.Option(help='The input by hand: "1 2 3; 4 5 6", "|" between channels.')]
Picture = Annotated[str | None, typer.Option(help="The input as a crop of a picture: digits:0, flower, a file.")]
At = Annotated[str | None, typer.Option(help="Top left corner of the crop: row,column (its middle).")]
Kernel = Annotated[str, typer.Option(help='A size (3, 5x3) for a random one, a name (sobel-x), or rows: "1 0; 0 -1".')]
OutChannels = Annotated[int | None, typer.Option(help="As many as groups, if not given.")]
Size = Annotated[str, typer.Option(help="2, or 2x1.")]
Groups = Annotated[int, typer.Option(help="Channels are split into so many groups.")]
Seed = Annotated[int, typer.Option(help="Of random whole numbers.", min=0)]
Movie = Annotated[Path | None, typer.Option(help="Draw it as well, moving: a .svg, .gif or .png file.")]


class _ValueUnlessNamed(TyperGroup):
    """A group whose first word may be a MODEL: then it is `value` that is meant."""

    default = "value"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


explain = typer.Typer(
    name="explain",
    cls=_ValueUnlessNamed,
    no_args_is_help=True,
    help="Show how a number came about: explain MODEL IMAGE, or a small convolution step by step: explain conv.",
    subcommand_metavar="MODEL IMAGE | conv | conv-transpose [ARGS]...",
)
explain.command()(value)


@explain.command()
def conv(
    input: Shape = None,
    values: Values = None,
    picture: Picture = None,
    at: At = None,
    kernel: Kernel = "3",
    out_channels: OutChannels = None,
    stride: Size = "1",
    padding: Size = "0",
    dilation: Size = "1",
    groups: Groups = 1,
    seed: Seed = 0,
    way: Annotated[str, typer.Option(help="window, im2col, matrix, winograd, fft, or all.")] = "window",
    out: Movie = None,
    json: Json = False,
) -> None:
    """Work a small convolution by hand: every window, or the matrices of another way to compute it."""
    asked = _asked(input, values, picture, at)
    sizes: dict[str, Any] = {
        "stride": parse_pair(stride),
        "padding": parse_pair(padding),
        "dilation": parse_pair(dilation),
    }
    asked |= {"kernel": kernel, "out_channels": out_channels, "groups": groups, "seed": seed}
    _work({**asked, **sizes}, way, out, json=json)


@explain.command()
def conv_transpose(
    input: Shape = None,
    values: Values = None,
    picture: Picture = None,
    at: At = None,
    kernel: Kernel = "3",
    out_channels: OutChannels = None,
    stride: Size = "1",
    padding: Size = "0",
    output_padding: Annotated[str, typer.Option(help="More rows and columns at the end.")] = "0",
    dilation: Size = "1",
    groups: Groups = 1,
    seed: Seed = 0,
    way: Annotated[str, typer.Option(help="scatter, insert (zeros between the values), matrix, or all.")] = "scatter",
    out: Movie = None,
    json: Json = False,
) -> None:
    """Work a small transposed convolution by hand: values that stamp the kernel, or zeros inserted."""
    asked = _asked(input, values, picture, at)
    sizes: dict[str, Any] = {
        "stride": parse_pair(stride),
        "padding": parse_pair(padding),
        "dilation": parse_pair(dilation),
        "output_padding": parse_pair(output_padding),
    }
    asked |= {"kernel": kernel, "out_channels": out_channels, "groups": groups, "seed": seed, "transposed": True}
    _work({**asked, **sizes}, way, out, json=json)


def _asked(input: str | None, values: str | None, picture: str | None, at: str | None) -> dict[str, Any]:
    from convscope.data.named import open_picture

    return {
        "input": parse_shape(input),
        "values": values,
        "picture": None if picture is None else open_picture(picture),
        "at": None if at is None else parse_numbers(at, ",", option="--at"),
    }


def _work(asked: dict[str, Any], way: str, out: Path | None, *, json: bool) -> None:
    from convscope.steps import Wish, compare, compute, frames, save_movie
    from convscope.steps.movie import check_kind

    if out is not None:
        check_kind(out)
        target_file(out)
    case = Wish(**asked).case()
    told = compare(case) if way == "all" else compute(case, way)
    if out is not None:
        view: Any = "insert" if way == "insert" else None
        say_written(save_movie(frames(case, view=view), out))
    show(told, data=told.data(), json=json)
