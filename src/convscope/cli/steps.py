"""`explain`: one value of a network, and small convolutions step by step."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperGroup

from convscope.cli.common import MOST, Json, parse_numbers, parse_shape, parse_size, say_written, show, target_file
from convscope.cli.look import value


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


def _work(
    ctx: typer.Context,
    input: Annotated[str | None, Option("--input", help="5x5 (rows x columns), or with channels first: 2x5x5.")] = None,
    ndim: Annotated[int, Option(help="Spatial axes: 1 (7), 2 (5x5) or 3 (3x4x4).")] = 2,
    values: Annotated[str | None, Option(help='The input by hand: "1 2; 4 5", "|" between channels.')] = None,
    picture: Annotated[str | None, Option(help="The input as a crop of a picture: digits:0, flower, a file.")] = None,
    at: Annotated[str | None, Option(help="Top left corner of the crop: row,column (its middle).")] = None,
    kernel: Annotated[str, Option(help='A size (3, 5x3), a name (sobel-x), or rows: "1 0; 0 -1".')] = "3",
    out_channels: Annotated[int | None, Option(help="As many as groups, if not given.")] = None,
    bias: Annotated[str | None, Option(help='One number, or one for each output channel: "1 -2".')] = None,
    stride: Annotated[str, Option(help="2, or 2x1.")] = "1",
    padding: Annotated[str, Option(help="2, or 2x1.")] = "0",
    output_padding: Annotated[str, Option(help="Of conv-transpose: more places at the end.")] = "0",
    dilation: Annotated[str, Option(help="2, or 2x1.")] = "1",
    groups: Annotated[int, Option(help="Channels are split into so many groups.")] = 1,
    seed: Annotated[int, Option(help="Of random whole numbers.", min=0, max=MOST)] = 0,
    way: Annotated[str | None, Option(help="One of those below, or all; the first if not given.")] = None,
    out: Annotated[Path | None, Option(help="Draw it as well, moving: a .svg, .gif or .png file.")] = None,
    json: Json = False,
) -> None:
    from convscope.data.named import open_picture
    from convscope.steps import Wish, compare, compute, frames, save_movie, ways_of
    from convscope.steps.movie import check_kind

    if out is not None:
        check_kind(out)
        target_file(out, reads=picture)
    sizes = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    axes: dict[str, Any] = {n: parse_size(size, option=f"--{n.replace('_', '-')}") for n, size in sizes.items()}
    case = Wish(
        ndim=ndim,
        input=parse_shape(input),
        values=values,
        picture=None if picture is None else open_picture(picture),
        at=None if at is None else parse_numbers(at, ",", option="--at"),
        kernel=kernel,
        out_channels=out_channels,
        bias=bias,
        groups=groups,
        seed=seed,
        transposed=ctx.info_name == "conv-transpose",
        **axes,
    ).case()
    told = compare(case) if way == "all" else compute(case, way or ways_of(case)[0])
    if out is not None:
        say_written(save_movie(frames(case, view="insert" if way == "insert" else None), out))
    show(told, data=told.data(), json=json)


_WAYS = {
    "conv": "Work a small convolution by hand: every window, or the matrices of another way to compute it."
    "\n\nWays: window, im2col, matrix, winograd, fft.",
    "conv-transpose": "Work a small transposed convolution by hand: values that stamp the kernel, or zeros inserted."
    "\n\nWays: scatter, insert (zeros between the values), matrix.",
}
for _name, _help in _WAYS.items():
    explain.command(_name, help=_help)(_work)
