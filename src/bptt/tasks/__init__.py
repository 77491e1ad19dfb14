"""Tasks: data, loss and metrics, one file each."""

from bptt.tasks.base import SPLITS, Batch, Split, Task
from bptt.tasks.synthetic import SyntheticTask

__all__ = ["SPLITS", "Batch", "Split", "SyntheticTask", "Task"]
