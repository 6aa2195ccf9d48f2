"""Training runs on disk: their settings and their folders."""

from convscope.runs.config import TrainConfig, resolve
from convscope.runs.folder import Run, load_run_model, open_run

__all__ = ["Run", "TrainConfig", "load_run_model", "open_run", "resolve"]
