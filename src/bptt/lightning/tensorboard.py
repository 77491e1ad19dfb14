"""TensorBoard as a place for what is no scalar."""

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """The event writers of this process; none on any but the first."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger.experiment for logger in loggers] if trainer.is_global_zero else []


def forget_after(writer: SummaryWriter, step: int) -> None:
    """Have TensorBoard forget the points beyond a step, which an interrupted run wrote after its last checkpoint."""
    events = writer._get_file_writer()
    events.add_event(Event(step=step + 1, file_version="brain.Event:2"))
    events.add_event(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
