"""Verbs that look at a picture or into a network."""

from pathlib import Path
from typing import Annotated, Any

import typer

from convscope import machine
from convscope.cli import why
from convscope.cli.common import (
    MOST,
    Image,
    Input,
    Json,
    Model,
    Out,
    Truncated,
    check_target,
    make_folder,
    parse_numbers,
    parse_pair,
    parse_shape,
    parse_size,
    pictured,
    recorded,
    say_written,
    show,
    target_file,
    target_png,
)
from convscope.errors import InputError
from convscope.table import Column, Table


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
    seed: Annotated[int, typer.Option(help="Of random kernels.", min=0, max=MOST)] = 0,
    allow_truncated: Truncated = False,
    out: Out = Path("convolved.png"),
    json: Json = False,
) -> None:
    """Convolve a picture with a kernel; print the shapes with their formula and draw the feature maps."""
    from convscope.convolve import ConvSpec, convolve
    from convscope.data.named import open_picture
    from convscope.explain.pictures import grid, save_png

    shared: dict[str, Any] = {
        "stride": parse_pair(stride),
        "padding": parse_pair(padding),
        "dilation": parse_pair(dilation),
    }
    size: Any = parse_pair(kernel_size)
    by_hand = "sobel-x" if kernel is None and not out_channels else kernel
    layers = [ConvSpec(kernel=by_hand, channels=channels, **shared)] if by_hand is not None else []  # pyright: ignore[reportArgumentType]
    layers += [ConvSpec(out_channels=n, kernel_size=size, **shared) for n in out_channels or ()]
    target = target_png(out, reads=image)
    done = convolve(open_picture(image, allow_truncated=allow_truncated), layers, seed=seed)
    say_written(save_png(grid(done.output[0].numpy(), title=f"{image}: {done.steps[-1].name}"), target))
    table = done.table()
    show(table, data={"layers": table.rows, "picture": str(out)}, json=json)


def inspect(
    model: Model,
    input: Annotated[
        list[str] | None, typer.Option(help="Input shape without the batch: 3x224x224; once for each input.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Pictures at once.", min=1)] = 1,
    depth: Annotated[int | None, typer.Option(help="Sum per module, paths cut to so many names.", min=1)] = None,
    sizes: Annotated[str | None, typer.Option(help="Compare input sizes instead: 224,256,320.")] = None,
    advice: Annotated[bool, typer.Option("--advice", help="Say what work is wasted, and the least input.")] = False,
    against: Annotated[str | None, typer.Option(help="Show the difference from this network.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the picture and all modules.")] = None,
    graph: Annotated[Path | None, typer.Option(help="Write the picture of the network as SVG.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Exit with 3 above so many MACs: 600M.")] = None,
    max_params: Annotated[str | None, typer.Option(help="Exit with 3 above so many parameters: 5M.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Exit with 3 above this peak for inference: 100MiB.")] = None,
    min_receptive_field: Annotated[int | None, typer.Option(help="Exit with 3 below so many px.", min=1)] = None,
    json: Json = False,
) -> None:
    """Print every operator of a network: output shape, parameters, MACs, memory, receptive field."""
    check_target(html, "--html")
    check_target(graph, "--graph")
    from convscope.cli.inspecting import at_sizes, inspected, keep_to, write_files

    with machine.loading():
        from convscope.inspect import compare, rolled
        from convscope.inspect.budget import Budget, amount

    macs, params = amount(max_macs, option="--max-macs"), amount(max_params, option="--max-params")
    budget = Budget(macs, params, amount(max_memory, option="--max-memory"), min_receptive_field)
    seen = inspected(model, input, batch=batch, advise=advice)
    shown: Any = seen.summary if depth is None else rolled(seen.summary, depth=depth)
    if sizes:
        shown = at_sizes(seen, sizes)
    elif against:
        shown = compare(inspected(against, input, batch=batch).summary, seen.summary, depth=depth or 99)
    write_files(seen, html=html, graph=graph, depth=depth)
    title = f"{seen.title}, against {against}" if against else seen.title
    show(shown.table(title=title), data={"model": model, **shown.data()}, json=json)
    keep_to(budget, seen.summary)


def family(
    input: Annotated[str | None, typer.Option(help="Channels and size of a map: 128x56x56.")] = None,
    ndim: Annotated[int | None, typer.Option(help="Spatial axes, where --input does not say.", min=1, max=3)] = None,
    out_channels: Annotated[int | None, typer.Option(help="As many as the input has, if not given.")] = None,
    batch: Annotated[int, typer.Option(help="Maps at once.")] = 8,
    kernel_size: Annotated[str, typer.Option(help="3, or one for each axis: 5x3.")] = "3",
    stride: Annotated[str, typer.Option(help="2, or 2x1.")] = "1",
    padding: Annotated[str | None, typer.Option(help="1, or 2x1; half of the kernel, if not given.")] = None,
    dilation: Annotated[str, typer.Option(help="Of the dilated one.")] = "2",
    groups: Annotated[int | None, typer.Option(help="Of the grouped ones; up to 4 if not given.")] = None,
    scale: Annotated[int, typer.Option(help="Stride of the transposed one.")] = 2,
    output_padding: Annotated[int | None, typer.Option(help="Of the transposed one.")] = None,
    time: Annotated[bool, typer.Option("--time", help="Measure each on this machine as well.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the savings: a .png or .svg file.")] = None,
    json: Json = False,
) -> None:
    """Set the convolution family side by side: output, parameters, MACs, field, bytes, and with --time the clock."""
    from convscope.family import MAPS, Setting, clocked, family

    shape = parse_shape(input) or MAPS[ndim or 2]
    if ndim not in (None, len(shape) - 1):
        raise InputError(f"--ndim: is {ndim}, but --input {input} has {len(shape) - 1} spatial axes; give one of them")
    text = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    window: dict[str, Any] = {
        name: parse_size(value, option=f"--{name.replace('_', '-')}") for name, value in text.items() if value
    }
    setting = Setting(
        in_channels=shape[0],
        out_channels=shape[0] if out_channels is None else out_channels,
        size=shape[1:],
        batch=batch,
        groups=groups,
        scale=scale,
        output_padding=output_padding,
        **window,
    )
    target = _picture_file(plot) if plot else None
    told = clocked(family(setting)) if time else family(setting)
    show(told, data=told.data(), json=json)
    if target:
        from convscope.family.picture import draw
        from convscope.files import write_figure

        say_written(write_figure(draw(told), target))


def field(
    model: Model,
    layer: Annotated[str, typer.Option(help="Which layer: C3, features.C3, or an operator's number.")],
    unit: Annotated[str | None, typer.Option(help="Which place in it: row,column (the middle).")] = None,
    effective: Annotated[bool, typer.Option("--effective", help="Measure how much each pixel counts.")] = False,
    image: Annotated[str | None, typer.Option(help="On this picture, instead of a plain canvas and noise.")] = None,
    allow_truncated: Truncated = False,
    input: Input = None,
    out: Annotated[Path | None, typer.Option(help="Draw it into this PNG file.")] = None,
    json: Json = False,
) -> None:
    """Print what one place of a layer sees of the picture: its receptive field, exact and effective."""
    from convscope.explain.pictures import save_png
    from convscope.field import field

    net, x, pixels = pictured(model, image, input, allow_truncated=allow_truncated)
    place = parse_numbers(unit, ",", option="--unit") if unit else None
    samples = (None if image else 16) if effective else 0
    found = field(net, x, layer=layer, place=place, samples=samples)
    show(found.table(), data={"model": model, **found.data()}, json=json)
    if out:
        say_written(save_png(found.picture(pixels), target_png(out, reads=image)))


def features(
    model: Model,
    image: Annotated[str | None, typer.Argument(help="Which picture.", metavar="[IMAGE]")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Only these layers (C3, features.C3, 4).")] = None,
    kernels: Annotated[bool, typer.Option("--kernels", help="Draw the layers' kernels instead.")] = False,
    statistics: Annotated[bool, typer.Option("--statistics", help="Count over a data set instead.")] = False,
    data: why.Data = None,
    part: why.Part = "test",
    allow_truncated: Truncated = False,
    input: Input = None,
    out: Out = Path("features"),
    json: Json = False,
) -> None:
    """Draw the feature maps of one picture in every layer, and save their numbers."""
    from convscope.explain import feature_maps, save_maps

    if statistics:
        why.show_statistics(model, layer, data, part, json=json)
        return
    if not kernels and image is None:
        raise InputError("features: of which picture is not said; give IMAGE, or --kernels, or --statistics")
    folder = make_folder(out)
    if kernels or image is None:
        why.draw_kernels(model, layer, input, folder, json=json)
        return
    maps = feature_maps(recorded(model, image, layer, input, allow_truncated=allow_truncated))
    files = save_maps(maps, folder)
    rows = tuple({"layer": m.name, "shape": m.maps.shape, "file": str(f)} for m, f in zip(maps, files, strict=False))
    table = Table((Column("layer", "layer"), Column("shape", "maps"), Column("file", "picture")), rows)
    show(table, data={"layers": rows, "values": str(files[-1])}, json=json)


def value(
    model: Model,
    image: Image,
    layer: Annotated[str | None, typer.Option(help="Which layer: C3, features.C3, or an operator's number.")] = None,
    unit: Annotated[str | None, typer.Option(help="Which value: sample,channel,row,column, such as 0,5,3,4.")] = None,
    depth: Annotated[
        int | None, typer.Option(help="Follow the largest terms so many operators down to the pixels.", min=1)
    ] = None,
    breadth: Annotated[int, typer.Option(help="How many terms of each value --depth follows.", min=1)] = 3,
    first_nan: Annotated[bool, typer.Option("--first-nan", help="Find the operator that made the first NaN.")] = False,
    allow_truncated: Truncated = False,
    input: Input = None,
    out: Annotated[Path | None, typer.Option(help="Draw it (.png, .svg, .html), or keep its numbers (.npz).")] = None,
    json: Json = False,
) -> None:
    """Show the terms that were combined to make one value of a layer of MODEL."""
    from convscope.explain import explain, trace
    from convscope.steps.still import check_file, save_value

    if out is not None:
        if depth or first_nan:
            raise InputError(
                "explain: --out is for one value and its terms; leave --depth and --first-nan away, or --out"
            )
        check_file(out)
        target_file(out, reads=image)
    if first_nan:
        _print_first_nan(recorded(model, image, None, input, allow_truncated=allow_truncated), json=json)
        return
    if layer is None or unit is None:
        raise InputError("explain: which value is not said; give --layer and --unit, or --first-nan")
    recording = recorded(model, image, None if depth else [layer], input, allow_truncated=allow_truncated)
    at = parse_numbers(unit, ",", option="--unit")
    if depth:
        told: Any = trace(recording, layer, unit=at, depth=depth, breadth=breadth)
    else:
        told = explain(recording, layer, unit=at)
    if out is not None:
        say_written(save_value(told, out))
    show(told, data=told.data(), json=json)


def _print_first_nan(recording: Any, *, json: bool) -> None:
    from convscope.explain import first_nan

    op = first_nan(recording)
    data = {"op": op and op.name, "layer": op and op.module, "index": op and op.index}
    found = f"the first NaN or infinity comes from operator {op.index}: {op.name}" if op else "no NaN, no infinity"
    show(f"{found} in {op.module}" if op and op.module else found, data=data, json=json)


def _picture_file(path: Path) -> Path:
    from convscope.files import figure_path

    return target_file(figure_path(path), "--plot")
