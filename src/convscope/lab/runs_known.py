"""The run folders that the page shows: by number, never by a path from a request."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from convscope.errors import CheckpointError
from convscope.evaluate import EVALUATIONS, Measured, held_out
from convscope.lab import found
from convscope.lab.session import MissingError
from convscope.lab.steps import counting
from convscope.predict import predict
from convscope.runs import Run, open_run
from convscope.runs.folder import CONFIG, MODEL
from convscope.runs.loaded import load_model

PICTURES = 48  # shown of one cell of the confusion matrix
MEASURED = 2  # evaluations that are held


class RunsKnown:
    """The given folders, and every run directly below `base`; a run's number stays the same while the lab runs."""

    def __init__(self, given: Sequence[Path] = (), *, base: Path | None = Path("runs")) -> None:
        self._folders = [f.resolve() for f in given]
        self._names = {f.resolve(): str(f) for f in given}
        self._base, self._listing, self._running = base, Lock(), Lock()
        self._measured: OrderedDict[int, Measured] = OrderedDict()

    def facts(self) -> list[dict[str, Any]]:
        """Each run that can be read: its number, name, settings, and whether it has all its epochs."""
        configs = sorted(self._base.glob(f"*/{CONFIG}")) if self._base and self._base.is_dir() else []
        with self._listing:
            for config in configs:
                if (folder := config.parent.resolve()) not in self._names:
                    self._folders.append(folder)
                    self._names[folder] = str(config.parent)
        rows = []
        for number, folder in enumerate(self._folders):
            try:
                rows.append(self._fact(number, open_run(folder)))
            except CheckpointError:  # a folder that is being made, or damaged: the command line says which
                continue
        return rows

    def metrics(self, number: int) -> dict[str, Any]:
        """What was logged, one row an epoch, and whether more is to come."""
        run = self._run(number)
        rows = run.metrics()
        return {"rows": rows, "epochs": run.config.epochs, "finished": self._finished(run, rows)}

    def evaluation(self, number: int) -> dict[str, Any]:
        """How right the run's network is on its test pictures; of several tasks, each as if it were alone."""
        measured = self._measure(number)
        if parts := measured.parts():
            return {"task": "several", "parts": {task: found.told(own) for task, own in parts.items()}}
        if getattr(measured.images, "task", "classify") != "classify":
            return found.told(measured)
        result = measured.evaluation
        return {
            "task": "classify", "classes": [c.name for c in result.per_class],
            "confusion": result.confusion, "images": result.num_images, "accuracy": result.accuracy,
            "interval": result.interval, "loss": result.loss,
            "calibration_error": result.calibration_error,
        }  # fmt: skip

    def cell(self, number: int, true: int, said: int) -> tuple[dict[str, Any], np.ndarray]:
        """The test pictures of class `true` that were named `said`: how many, and the first 48 of them."""
        measured = self._classifier(number)
        images = measured.images
        if not (true < len(images.classes) and said < len(images.classes)):
            raise MissingError(f"cell {true},{said}: there are classes 0 to {len(images.classes) - 1}")
        hit = (images.labels == true) & (measured.evaluation.predictions == said)
        index = hit.nonzero().flatten()
        shown = images.images[index[:PICTURES]].float() / (1.0 if images.images.is_floating_point() else 255.0)
        return {"total": len(index), "index": index[:PICTURES].tolist(), "shape": images.shape}, shown.numpy()

    def pictures(self, number: int, task: str) -> dict[str, Any]:
        """What was found in the test pictures, worst first."""
        return found.pictures(self._part(number, task))

    def picture(self, number: int, task: str, index: int) -> tuple[dict[str, Any], np.ndarray]:
        """One test picture, and of a segmenter its masks."""
        return found.picture(self._part(number, task), index)

    def predictions(self, number: int, index: int) -> dict[str, Any]:
        """The five likeliest classes of one test picture."""
        measured = self._classifier(number)
        if index >= len(measured.images):
            raise MissingError(f"picture {index}: there are test pictures 0 to {len(measured.images) - 1}")
        x, label = measured.images.batch(torch.tensor([index]))
        with self._running:
            rows = predict(measured.model, x, classes=measured.images.classes).rows
        true = measured.images.classes[int(label[0])]
        return {"true": true, "top": [{"label": r.label, "probability": r.probability} for r in rows]}

    def _fact(self, number: int, run: Run) -> dict[str, Any]:
        config = run.config
        rows = run.metrics()
        return {
            "id": number, "name": self._names[run.folder], "model": config.model, "data": config.data,
            "task": config.task, "epochs": config.epochs, "done": len(rows), "finished": self._finished(run, rows),
        }  # fmt: skip

    def _finished(self, run: Run, rows: Sequence[Any]) -> bool:
        return len(rows) >= run.config.epochs and (run.folder / MODEL).is_file()

    def _run(self, number: int) -> Run:
        if not 0 <= number < len(self._folders):
            raise MissingError(f"run {number}: there are runs 0 to {len(self._folders) - 1}")
        return open_run(self._folders[number])

    def _classifier(self, number: int) -> Measured:
        measured = self._measure(number)
        if getattr(measured.images, "task", "classify") != "classify":
            raise MissingError(f"run {number}: did not learn to classify; ask for its other pages")
        return measured

    def _part(self, number: int, task: str) -> Measured:
        """Of several tasks the one that is named; of one, itself."""
        measured = self._measure(number)
        part = measured.parts().get(task, measured)
        if part.images.task != task or task not in ("detect", "segment"):
            raise MissingError(f"run {number}: did not learn to {task[:20]}; ask for its other pages")
        return part

    def _measure(self, number: int) -> Measured:
        run = self._run(number)
        with self._running:
            if number not in self._measured:
                self._measured[number] = _measured(run)
                while len(self._measured) > MEASURED:
                    self._measured.popitem(last=False)
            self._measured.move_to_end(number)
            return self._measured[number]


def _measured(run: Run) -> Measured:
    """As `evaluate_run`, counted picture by picture."""
    loaded = load_model(str(run.folder))
    images = held_out(loaded)
    with counting(loaded.model, len(images)):
        return Measured(run, loaded.model, images, EVALUATIONS[loaded.task](loaded.model, images))
