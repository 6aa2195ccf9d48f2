"""Verbs that ask what a layer looks for, and what an answer rests on."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from convscope.cli.common import (
    MOST,
    Image,
    Input,
    Json,
    Model,
    Out,
    Truncated,
    make_folder,
    parse_numbers,
    parse_shape,
    say,
    say_written,
    show,
    target_png,
    warn_if_untrained,
)
from convscope.errors import InputError
from convscope.table import Column, Table

PIXELS_AT_ONCE = 2**21  # values of a batch: 13 pictures of 3x224x224

Layer = Annotated[str, typer.Option(help="Which layer: C3, or features.C3.")]
Data = Annotated[str | None, typer.Option(help="Whose pictures: digits, or a folder; a run knows its own.")]
Part = Annotated[str, typer.Option(help="Which part of them: train, val or test.")]


def attribute(
    model: Model,
    image: Image,
    method: Annotated[str, typer.Option(help="grad-cam, another method, or `all`.")] = "grad-cam",
    target: Annotated[str | None, typer.Option(help="Which class, by name or number; the likeliest if none.")] = None,
    box: Annotated[int | None, typer.Option(help="Which box of a detector; 0 is the best.", min=0)] = None,
    pixel: Annotated[str | None, typer.Option(help="Which pixel of a segmenter: row,column; all if none.")] = None,
    layer: Annotated[str | None, typer.Option(help="Which layer Grad-CAM looks at; the last that has places.")] = None,
    seed: Annotated[int, typer.Option(help="Of SmoothGrad's noise.", min=0, max=MOST)] = 0,
    allow_truncated: Truncated = False,
    input: Input = None,
    out: Out = Path("why.png"),
    json: Json = False,
) -> None:
    """Draw which parts of a picture an answer of the network rests on."""
    from convscope.explain.attribution import attribute
    from convscope.explain.sheets import sheet
    from convscope.predict import answer

    path = target_png(out, reads=image)
    place = parse_numbers(pixel, ",", option="--pixel") if pixel else None
    names = _methods(method)
    loaded, x = _prepared(model, image, input, allow_truncated=allow_truncated)
    told = answer(loaded, x, target=target, box=box, pixel=place)
    layers = {m: (layer or told.layer if "cam" in m else None if method == "all" else layer) for m in names}
    found = [attribute(loaded.model, x, m, target=told.target, layer=layers[m], seed=seed) for m in names]
    picture = loaded.normalisation.undo(x)[0].movedim(0, -1).numpy()
    title = f"{image}: {told}"
    say_written(_save(sheet(told.marked(picture), found, title=title), path))
    say_written(_save_numbers(path.with_suffix(".npz"), picture=picture, **{a.method: a.map for a in found}))
    table = _attributions(found, title)
    data = {**told.data(), "methods": [a.data() for a in found], "picture": str(path)}
    show(table, data=data, json=json)


def patches(
    model: Model,
    layer: Layer,
    channel: Annotated[list[int], typer.Option(help="Which channel; repeat for more.", min=0)],
    data: Data = None,
    part: Part = "test",
    top: Annotated[int, typer.Option(help="How many patches a channel.", min=1)] = 9,
    out: Out = Path("patches"),
    json: Json = False,
) -> None:
    """Cut out what makes a channel fire most among the pictures of a data set."""
    from convscope.patches import patches

    folder = make_folder(out)
    loaded, images = _pictures(model, data, part)
    batches = _batches(images)
    grids = patches(
        loaded.model, batches, layer=layer, channels=channel, top=top, pixels=loaded.normalisation.undo
    )  # fmt: skip
    for grid in grids:
        say_written(_save(grid.picture(), folder / f"{grid.layer}-{grid.channel}.png"))
    show("\n\n".join(str(g.table()) for g in grids), data={"channels": [g.data() for g in grids]}, json=json)


def visualise(
    model: Model,
    layer: Layer,
    channel: Annotated[int, typer.Option(help="Which channel of it.", min=0)],
    steps: Annotated[int, typer.Option(help="How many steps; Ctrl-C stops before.", min=1, max=MOST)] = 256,
    seed: Annotated[int, typer.Option(help="Of the first picture and its moves.", min=0, max=MOST)] = 0,
    input: Input = None,
    out: Out = Path("visualised.png"),
    json: Json = False,
) -> None:
    """Make a picture that a channel fires at, by gradient ascent."""
    from convscope.runs.loaded import load_model
    from convscope.visualise import ascent

    path = target_png(out)
    loaded = load_model(model, shape=parse_shape(input))
    warn_if_untrained(loaded)
    options = {"steps": steps, "seed": seed, "normalise": loaded.normalisation}
    last, code = None, 0
    try:
        climbing = ascent(loaded.model, layer=layer, channel=channel, shape=loaded.shape, **options)
        for state in _counted(climbing, steps + 1):
            last = state
    except KeyboardInterrupt:
        if last is None:
            raise
        say(f"stopped after {last.steps} of {steps} steps")
        code = 130
    if last is not None:
        say_written(_save(last.picture(), path))
        row = last.data()
        table = Table(tuple(Column(k, k.replace("_", " ")) for k in row), (row,))
        show(table, data={**row, "picture": str(path)}, json=json)
    raise typer.Exit(code)


def draw_kernels(model: str, layers: list[str] | None, input: str | None, folder: Path, *, json: bool) -> None:
    """`features --kernels`: a picture of each layer's kernels; of the first convolution's if none is named."""
    from convscope.explain.weights import first_convolution, kernels
    from convscope.runs.loaded import load_model

    loaded = load_model(model, shape=parse_shape(input))
    warn_if_untrained(loaded)
    names = layers or [first_convolution(loaded.model, shape=loaded.shape)]
    made = [kernels(loaded.model, name, shape=loaded.shape) for name in names]
    for found in made:
        say_written(_save(found.picture(), folder / f"kernels-{found.layer}.png"))
        _save_numbers(folder / f"kernels-{found.layer}.npz", weights=found.weights)
    rows = tuple(row for found in made for row in found.table().rows)
    show(Table(made[0].table().columns, rows), data={"layers": rows}, json=json)


def show_statistics(model: str, layers: list[str] | None, data: str | None, part: str, *, json: bool) -> None:
    """`features --statistics`: a table for each layer, over the pictures of a data set."""
    from convscope.explain.channels import statistics

    if not layers:
        raise InputError("features: of which layer is not said; give --layer with --statistics")
    loaded, images = _pictures(model, data, part)
    found = [statistics(loaded.model, _batches(images), layer=layer) for layer in layers]
    show("\n\n".join(str(f.table()) for f in found), data={"layers": [f.data() for f in found]}, json=json)


def _prepared(model: str, image: str, input: str | None, *, allow_truncated: bool) -> tuple[Any, Any]:
    from convscope.data.named import open_picture
    from convscope.runs.loaded import load_model

    loaded = load_model(model, shape=parse_shape(input))
    warn_if_untrained(loaded)
    x, notes = loaded.prepare(open_picture(image, allow_truncated=allow_truncated))
    say(*notes)
    return loaded, x


def _methods(method: str) -> tuple[str, ...]:
    from convscope.explain.attribution import METHODS

    if method != "all" and method not in METHODS:
        raise InputError(f"--method {method!r}: there is none of that name; use one of {', '.join(METHODS)}, all")
    return tuple(METHODS) if method == "all" else (method,)


def _attributions(found: list[Any], title: str) -> Table:
    import numpy as np

    rows = []
    for a in found:
        at = np.unravel_index(int(np.abs(np.nan_to_num(a.map)).argmax()), a.map.shape)
        place = f"{at[0]}, {at[1]}"
        rows.append({"method": a.method, "layer": a.layer or "", "at": place, "score": a.score, "gap": a.gap})
    columns = (Column("method", "method"), Column("layer", "layer"), Column("at", "strongest at row, column"),
               Column("score", "score"), Column("gap", "gap"))  # fmt: skip
    notes = ("gap: how far the map's sum is from score less the score of zeros",) if any(r["gap"] for r in rows) else ()
    return Table(columns, tuple(rows), title=title, notes=notes)


def _pictures(model: str, data: str | None, part: str) -> tuple[Any, Any]:
    """The model, and the pictures of a data set as it takes them."""
    from dataclasses import replace

    from convscope import data as datasets
    from convscope.runs import open_run
    from convscope.runs.loaded import load_model

    loaded = load_model(model)
    warn_if_untrained(loaded)
    if part not in ("train", "val", "test"):
        raise InputError(f"--part: {part!r} is no part of a data set; use train, val or test")
    if data is None and not Path(model).is_dir():
        raise InputError(f"--data: whose pictures is not said, and {model} is no run; give digits, or a folder")
    run = open_run(model) if Path(model).is_dir() else None
    spec, seed = data or (run and run.config.data) or "", run.config.seed if run else 0
    task = loaded.task if data is None or data in datasets.DATASETS[loaded.task] else "classify"
    wanted: Any = {"seed": seed, "task": task, "allow_empty": data is None}
    splits = datasets.load(spec, shape=loaded.shape, **wanted)
    return loaded, replace(getattr(splits, part), normalisation=loaded.normalisation)


def _batches(images: Any) -> Iterator[Any]:
    """The normalised pictures, as many at once as a fixed number of values allows; progress on the error stream."""
    import torch

    size = max(1, PIXELS_AT_ONCE // math.prod(images.shape))
    parts = torch.arange(len(images)).split(size)
    for at in _counted(parts, len(parts)):
        yield images.batch(at)[0]


def _counted(items: Iterable[Any], total: int) -> Iterator[Any]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, "", total=total, console=console, disable=not console.is_terminal, transient=True)


def _save(image: Any, path: Path) -> Path:
    from convscope.explain.pictures import save_png

    return save_png(image, path)


def _save_numbers(path: Path, **arrays: Any) -> Path:
    import numpy as np

    from convscope.files import write_whole

    return write_whole(path, lambda file: np.savez_compressed(file, **arrays))
