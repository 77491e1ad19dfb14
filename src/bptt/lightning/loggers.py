"""Loggers of curves. Points that an interrupted run logged after its last checkpoint are discarded on resume."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.fabric.loggers.logger import Logger as AnyLogger
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from bptt import metrics_file
from bptt.lightning.events import EventWriter
from bptt.lightning.folder_place import FolderPlace
from bptt.run_folder import RunFolder

if TYPE_CHECKING:  # matplotlib is loaded when the first figure is drawn
    from matplotlib.figure import Figure

BINS = 30  # of a histogram


class RunLogger(Logger):
    """A logger of this project, which tells its points from those of Lightning's callbacks, as LearningRateMonitor.

    step_of_callbacks: x-coordinate of the latter in place of their count of batches, `BPTTModule.step_of_callbacks`.
    """

    step_of_callbacks: Callable[[], int | None] | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.step_of_callbacks is None:
            self.write(metrics, {}, step)
        elif (own := self.step_of_callbacks()) is not None:
            self.write(metrics, {}, own)

    @abstractmethod
    def write(self, scalars: Mapping[str, float], histograms: Mapping[str, Tensor], step: int | None) -> None:
        """Log scalars, and histograms of finite values if the logger can."""


class EventLogger(RunLogger, TensorBoardLogger):
    """TensorBoard logger that writes into the run folder, with all scalars of a step in one event."""

    def __init__(self, save_dir: str | Path):
        super().__init__(str(save_dir), name="", version="", default_hp_metric=False)

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        if self._experiment is None:
            self._experiment = EventWriter(self.log_dir)
        return self._experiment

    def write(self, scalars: Mapping[str, float], histograms: Mapping[str, Tensor], step: int | None) -> None:
        add_event(self, scalars, histograms, step)

    @rank_zero_only
    def save(self) -> None:
        """Write all events. Lightning's method would add an `hparams.yaml`, which is always empty here."""
        self.experiment.flush()


class CSVLogger(RunLogger):
    """Scalars as lines step,tag,value of `metrics.csv`, written when they are logged.

    FileNotFoundError if the folder was moved or replaced since the first line.

    Lightning's `CSVLogger` starts a new file when a run is resumed, and only writes at multiples of 100 steps.
    """

    name, version = "csv", ""

    def __init__(self, save_dir: str | Path):
        super().__init__()
        self.path = RunFolder(Path(save_dir)).metrics
        self._place: FolderPlace | None = None

    @rank_zero_only
    def write(self, scalars: Mapping[str, float], histograms: Mapping[str, Tensor], step: int | None) -> None:
        if self._place is not None:
            self._place.check()
        metrics_file.add(self.path, ((step or 0, tag, float(value)) for tag, value in scalars.items()))
        self._place = self._place or FolderPlace(self.path.parent)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing: hyperparameters are in `.hydra/config.yaml`."""


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """TensorBoard event writers, for data other than scalars. Empty on all processes but the first."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []


def new_writers(trainer: Trainer, *, resumed: bool) -> list[SummaryWriter]:
    """The writers that have written nothing before: of a run that begins, or of a logger that it has got since."""

    def is_new(writer: SummaryWriter) -> bool:
        return len(list(Path(writer.get_logdir()).glob("events.out.tfevents.*"))) == 1  # the one that it has opened

    return [writer for writer in writers(trainer) if not resumed or is_new(writer)]


def write_image(trainer: Trainer, tag: str, draw: Callable[[], "Figure"], step: int) -> None:
    """Log a figure to TensorBoard. It is not drawn if no writer takes it."""
    found = writers(trainer)
    if found:
        from bptt import figures

        image = figures.pixels(draw())
        for writer in found:
            writer.add_image(tag, image, step, dataformats="HWC")


def log(logger: AnyLogger, scalars: Mapping[str, float], histograms: Mapping[str, Tensor], step: int | None) -> None:
    """Send scalars to any logger, and histograms of finite values to a TensorBoard logger.

    `EventLogger` receives both in one event.
    """
    if isinstance(logger, RunLogger):
        logger.write(scalars, histograms, step)
        return
    logger.log_metrics(dict(scalars), step)
    if histograms and isinstance(logger, TensorBoardLogger):
        add_event(logger, {}, histograms, step)


@rank_zero_only
def add_event(
    logger: TensorBoardLogger, scalars: Mapping[str, float], histograms: Mapping[str, Tensor], step: int | None
) -> None:
    values = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in scalars.items()]
    values += [Summary.Value(tag=tag, histo=histogram(tensor)) for tag, tensor in histograms.items()]
    logger.experiment._get_file_writer().add_summary(Summary(value=values), step)


def histogram(values: Tensor) -> HistogramProto:
    """Histogram of one or more values in bins of equal width.

    `SummaryWriter.add_histogram` takes six times as long for a thousand values.
    """
    values = values.flatten().double()
    low, high = (float(end) for end in values.aminmax())
    counts = torch.histc(values, BINS, low, high).tolist() if low < high else [float(len(values))]
    return HistogramProto(
        min=low,
        max=high,
        num=len(values),
        sum=float(values.sum()),
        sum_squares=float(values.square().sum()),
        bucket_limit=[low + (high - low) * edge / BINS for edge in range(1, BINS + 1)][-len(counts) :],
        bucket=counts,
    )


def write_scalar(trainer: Trainer, tag: str, value: float, step: int) -> None:
    """Log a value to TensorBoard alone, if it is finite."""
    if math.isfinite(value):
        for writer in writers(trainer):
            writer.add_scalar(tag, value, step)


def discard_after(trainer: Trainer, step: int) -> None:
    """Discard the points beyond a step. An interrupted run logged them after its last checkpoint, with any loggers."""
    for writer in writers(trainer):
        events = writer._get_file_writer()
        events.add_event(Event(step=step + 1, file_version="brain.Event:2"))
        events.add_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
    if trainer.is_global_zero:
        metrics_file.discard_after(RunFolder(Path(trainer.default_root_dir)).metrics, step)
