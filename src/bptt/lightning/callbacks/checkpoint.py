"""When checkpoints are written."""

import math
import os
import signal
import subprocess
import threading
import time
from typing import Any, Literal

from lightning import LightningModule, Trainer

from bptt.contracts import at_least, between, one_of, refusal
from bptt.lightning.callbacks.base import TrainingCallback, monitored, run_folder
from bptt.lightning.checkpoint import write
from bptt.lightning.loggers import forget_after, write_at_end
from bptt.lightning.module import BPTTModule
from bptt.lightning.processes import any_of
from bptt.tasks.base import Batch

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # of schedulers, of a person, of Slurm before it requeues


class Checkpoint(TrainingCallback):
    """Writes `last.ckpt` between two batches, from which the run resumes to the bit, and `best.ckpt`.

    last.ckpt: at the first batch after a validation, after `every_n_updates` updates or `every_n_minutes` minutes, at
    the end, and when SIGTERM, SIGINT or SIGUSR1 asks the run to stop; after SIGUSR1 a Slurm job is put into its queue
    again. The one before is kept as `previous.ckpt`.
    best.ckpt: after the validation with the best `monitor`, for its weights.

    Each file appears whole or not at all, and holds plain containers and tensors: loading one runs nothing.
    """

    def __init__(
        self,
        monitor: str = "validation/loss",
        mode: Literal["min", "max"] = "min",
        *,
        every_n_updates: int | None = None,
        every_n_minutes: float | None = 10,
    ):
        if not isinstance(monitor, str):
            raise ValueError(refusal("monitor", "the name of a metric", monitor))
        one_of(("min", "max"), mode=mode)
        if every_n_updates is not None:
            at_least(1, every_n_updates=every_n_updates)
        if every_n_minutes is not None:
            between(0, math.inf, every_n_minutes=every_n_minutes, open_low=True)
        self.monitor = monitor
        self.mode = mode
        self.every_n_updates = every_n_updates
        self.every_n_minutes = every_n_minutes
        self.best: float | None = None
        self.saved_at = 0  # updates
        self.saved_when = time.monotonic()
        self.validated = False  # since the last checkpoint
        self.signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "saved_at": self.saved_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.saved_at = state_dict["best"], state_dict["saved_at"]

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        # on_train_start is too late: Lightning skips it when the resumed run is already complete.
        if trainer.ckpt_path is not None:
            forget_after(trainer, module.step_axis)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_when = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def before_batch(self, trainer: Trainer, module: BPTTModule, batch: Batch) -> None:
        # Here the previous batch is over, with everything that belongs to it: its validation too.
        stop = any_of(self.signal is not None, module.device)
        if stop or any_of(self._due(module.counters.updates), module.device):
            self._save_last(trainer, module)
        if stop:
            name = signal.Signals(self.signal).name if self.signal is not None else "a signal on another process"
            if self.signal == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ and trainer.is_global_zero:
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
            raise KeyboardInterrupt(name)

    def after_validation(self, trainer: Trainer, module: BPTTModule) -> None:
        value = monitored(trainer, self.monitor)
        if self.best is None or math.isnan(self.best) or self._better(value, self.best):
            self.best = value
            write(trainer, run_folder(trainer).best_checkpoint)
        self.validated = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        self._save_last(trainer, pl_module)

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        self._restore_signal_handlers()
        if self.best is not None:
            write_at_end(trainer, {f"best_{self.monitor.replace('/', '_')}": self.best}, module.step_axis)

    def _due(self, updates: int) -> bool:
        minutes = (time.monotonic() - self.saved_when) / 60
        return (
            self.validated
            or (self.every_n_updates is not None and updates >= self.saved_at + self.every_n_updates)
            or (self.every_n_minutes is not None and minutes >= self.every_n_minutes)
        )

    def _save_last(self, trainer: Trainer, module: BPTTModule) -> None:
        self.saved_at, self.saved_when, self.validated = module.counters.updates, time.monotonic(), False
        folder = run_folder(trainer)
        write(trainer, folder.last_checkpoint, keep=folder.previous_checkpoint)

    def _better(self, value: float, other: float) -> bool:
        return value < other if self.mode == "min" else value > other

    def _on_signal(self, number: int, _: Any) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt  # asked twice: at once, and without a checkpoint
        self.signal = number

    def _restore_signal_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
