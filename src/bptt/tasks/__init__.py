"""Tasks: data, loss and metrics, one file each."""

from bptt.tasks.base import SPLITS, Batch, Split, Task
from bptt.tasks.synthetic import SeededTask, SyntheticTask

__all__ = ["SPLITS", "Batch", "SeededTask", "Split", "SyntheticTask", "Task"]
