"""Where curves go, and how a run that goes on takes back what it had logged too much."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from bptt import metrics_file


class EventLogger(TensorBoardLogger):
    """TensorBoard's events, in the run folder itself, with all scalars of one step in one event.

    Events are written by a thread, in Python, for which training waits where `max_queue` of them are waiting; by
    default these are 10.
    """

    def __init__(self, save_dir: str | Path, *, max_queue: int = 1000):
        super().__init__(str(save_dir), name="", version="", default_hp_metric=False, max_queue=max_queue)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in metrics.items()]
        self.experiment._get_file_writer().add_summary(Summary(value=values), step)


class CSVLogger(Logger):
    """Scalars as lines step,tag,value of `metrics.csv`, each on the disk when it is logged.

    Lightning's own begins a new file when a run is resumed, and writes at steps that are multiples of 100 alone.
    """

    name, version = "csv", ""

    def __init__(self, save_dir: str | Path):
        super().__init__()
        self.path = Path(save_dir) / metrics_file.NAME

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        metrics_file.add(self.path, ((step or 0, tag, float(value)) for tag, value in metrics.items()))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They are in `.hydra/config.yaml`."""


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """TensorBoard's event writers of this process, for what is no scalar; none on any but the first."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []


def add_histogram(writer: SummaryWriter, tag: str, values: Tensor, step: int, *, bins: int = 30) -> None:
    """Finite values, at least one, in equal bins. The writer's own takes six times longer over a thousand of them."""
    values = values.flatten().double()
    low, high = values.aminmax()
    edges = torch.linspace(float(low), float(high), bins + 1, dtype=torch.float64)
    counts = torch.histc(values, bins, float(low), float(high)) if low < high else torch.tensor([float(len(values))])
    writer.add_histogram_raw(
        tag,
        min=float(low),
        max=float(high),
        num=len(values),
        sum=float(values.sum()),
        sum_squares=float(values.square().sum()),
        bucket_limits=edges[-len(counts) :].tolist(),
        bucket_counts=counts.tolist(),
        global_step=step,
    )


def forget_after(trainer: Trainer, step: int) -> None:
    """Have all loggers forget the points beyond a step, which an interrupted run wrote after its last checkpoint."""
    for writer in writers(trainer):
        events = writer._get_file_writer()
        events.add_event(Event(step=step + 1, file_version="brain.Event:2"))
        events.add_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger) and trainer.is_global_zero:
            metrics_file.forget_after(logger.path, step)
