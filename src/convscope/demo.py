"""The main job on an embedded default: train, evaluate, inspect, explain, and write it all down."""

import time
from collections.abc import Iterator
from pathlib import Path

from convscope import machine
from convscope.data import digits
from convscope.evaluate import evaluate_run
from convscope.report import write_report
from convscope.runs import resolve
from convscope.runs.folder import MODEL, is_begun
from convscope.train import train


def run_demo(out: Path, *, epochs: int, seed: int) -> Iterator[str]:
    """Train LeNet5 on the digits and write the report; yields what a person should read, line by line.

    The run goes to `out`, or to the next free name beside it.
    """
    folder = _free(out)
    begun = time.perf_counter()
    yield f"training LeNet5 on {len(digits().train):,} real handwritten digits, {epochs} epochs, into {folder}/"
    settings = resolve({"epochs": epochs, "seed": seed}, defaults=machine.training_defaults())
    run = train(settings, out=folder)
    seconds = time.perf_counter() - begun
    measured = evaluate_run(folder)
    report = write_report(folder, measured)
    yield f"trained in {seconds:.0f} s\n\n{measured.evaluation.table().notes[0]}\n"
    yield str(report.summary.table(title="LeNet5, layer by layer"))
    yield f"\nOne value of C3, from its products:\n\n{report.explanation}\n"
    yield "made:\n" + "\n".join(f"  {path}" for path in (report.path, folder / MODEL, run.folder))
    yield (
        "next:\n"
        f"  open {report.path} in a browser\n"
        f"  convscope predict {folder} digits:0 digits:1\n"
        f"  convscope explain {folder} digits:0 --layer C3 --unit 0,5,3,4\n"
        f"  convscope features {folder} digits:0\n"
        "  convscope convolve --kernel sobel-x\n"
        f"  convscope lab {folder} digits:0"
    )


def _free(out: Path) -> Path:
    names = (out if n == 1 else out.with_name(f"{out.name}-{n}") for n in range(1, 10_000))
    return next(p for p in names if not is_begun(p))
