"""Schedule of checkpoints, and reaction to signals."""

import math
import os
import shlex
import signal
import subprocess
import time
from typing import Any, Literal, NoReturn

from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from bptt.contracts import at_least, between, one_of, refusal
from bptt.lightning.callbacks.base import TrainingCallback, monitored, run_folder
from bptt.lightning.checkpoint_files import DirectCheckpointIO, read, write
from bptt.lightning.loggers import discard_after, write_scalar
from bptt.lightning.module import BPTTModule, time_is_over
from bptt.lightning.processes import any_of, let_further_ones_end
from bptt.lightning.stop_signals import StopSignals
from bptt.lightning.terminal import say
from bptt.tasks.base import Batch


class Checkpoint(TrainingCallback):
    """Writes `last.ckpt`, from which a run resumes bit-exactly, and `best.ckpt`.

    last.ckpt: written at the first batch after a validation, every `every_n_updates` updates, every `every_n_minutes`
        minutes, at the end, and on a stop signal (SIGTERM, SIGINT, SIGHUP, SIGUSR1). After SIGUSR1 a Slurm job is
        requeued. The file is written between two batches; with estimator=chunked without burn_in also between two
        updates. A signal during a validation takes effect before the next validation batch; the resumed run repeats
        the validation. The former file is kept as `previous.ckpt`.
    best.ckpt: written after the validation with the best `monitor`; use it for its weights. If a resumed run finds it
        missing or damaged, also after the next validation.

    Files are written atomically. They contain only plain containers and tensors, so loading one executes no code.
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
        self.saved_at: int | None = None  # number of updates at the last checkpoint
        self.saved_when = time.monotonic()
        self._best_is_lost = False  # True until `best.ckpt` is written again
        self.validated = False  # True if a validation ended since the last checkpoint
        self.signals = StopSignals()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "saved_at": self.saved_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.saved_at = state_dict["best"], state_dict["saved_at"]

    def at_start(self, trainer: Trainer, module: BPTTModule) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = DirectCheckpointIO()
        module.after_update.append(self.save_or_stop)
        self.signals.catch()  # Lightning puts these handlers back when training is over, until `at_end`
        # on_train_start is too late: Lightning skips it when the resumed run is already complete.
        if trainer.ckpt_path is not None:
            discard_after(trainer, module.step_axis)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        self.saved_when = time.monotonic()
        self.saved_at = pl_module.counters.updates if trainer.ckpt_path is not None else None
        if trainer.ckpt_path is not None and self.best is not None:
            self._check_best(trainer, pl_module)
        self.signals.catch()  # again, because Lightning installs its own handlers just before training starts

    def _check_best(self, trainer: Trainer, module: BPTTModule) -> None:
        """Let the next validation count as the best so far if `best.ckpt` cannot be read. Collective."""
        path, fault = run_folder(trainer).best_checkpoint, ""
        if trainer.is_global_zero:
            try:
                if path.exists():
                    read(path)
                else:
                    fault = f"{path} is missing"
            except ValueError as error:
                fault = str(error)
        if fault:
            say(f"skipped: {fault}; the next validation counts as the best so far", error=True)
        self._best_is_lost = any_of(bool(fault), module.device)

    def before_batch(self, trainer: Trainer, module: BPTTModule, batch: Batch) -> None:
        # here the previous batch is complete, including the validation after it
        self.save_or_stop(trainer, module)

    def save_or_stop(self, trainer: Trainer, module: BPTTModule) -> None:
        """Write `last.ckpt` if it is due. If a stop signal has arrived, write it and end the run."""
        stop = any_of(self.signals.received is not None, module.device)
        if stop or any_of(self._due(module.counters.updates), module.device):
            self._save_last(trainer, module)
        if stop:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        assert isinstance(pl_module, BPTTModule)
        if trainer.state.fn != TrainerFn.FITTING or not any_of(self.signals.received is not None, pl_module.device):
            return
        # A run at its limit would not repeat its last validation, so it must resume from the previous checkpoint.
        at_limit = 0 <= trainer.max_steps <= trainer.global_step or time_is_over(trainer)
        if pl_module.validation_runs and not any_of(at_limit, pl_module.device):
            self._save_last(trainer, pl_module)
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> NoReturn:
        received = self.signals.received
        if received == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ and trainer.is_global_zero:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
        let_further_ones_end(trainer)
        raise KeyboardInterrupt("a signal on another process" if received is None else received.name)

    def after_validation(self, trainer: Trainer, module: BPTTModule) -> None:
        value = monitored(trainer, self.monitor)
        if self.best is None or math.isnan(self.best) or self._best_is_lost or self._better(value, self.best):
            self.best, self._best_is_lost = value, False
            self.check_folder(trainer)
            write(trainer, run_folder(trainer).best_checkpoint)
        write_scalar(trainer, f"best/{self.monitor.replace('/', '_')}", self.best, module.step_axis)
        self.validated = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        self._save_last(trainer, pl_module)

    def at_end(self, trainer: Trainer, module: BPTTModule, exception: BaseException | None) -> None:
        if exception is None:
            self.signals.finish()
        else:
            self.signals.restore()
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            say(self._farewell(trainer, exception), error=True)

    def _farewell(self, trainer: Trainer, exception: KeyboardInterrupt) -> str:
        """One line with the checkpoint of an interrupted run and how to resume it."""
        cause = f"interrupted by {str(exception) or 'Ctrl-C'}"
        if self.saved_at is None:
            return f"{cause}: no checkpoint was written yet, so the run has to begin again"
        folder = run_folder(trainer)
        word = shlex.quote(f"resume={folder.path}")
        return f"{cause}: saved after {self.saved_at:,} updates in {folder.last_checkpoint}; {word} goes on"

    def _due(self, updates: int) -> bool:
        minutes = (time.monotonic() - self.saved_when) / 60
        return (
            self.validated
            or (self.every_n_updates is not None and updates >= (self.saved_at or 0) + self.every_n_updates)
            or (self.every_n_minutes is not None and minutes >= self.every_n_minutes)
        )

    def _save_last(self, trainer: Trainer, module: BPTTModule) -> None:
        self.check_folder(trainer)
        folder = run_folder(trainer)
        write(trainer, folder.last_checkpoint, keep=folder.previous_checkpoint)
        # After it is written: a second Ctrl-C may end the run meanwhile.
        self.saved_at, self.saved_when, self.validated = module.counters.updates, time.monotonic(), False

    def _better(self, value: float, other: float) -> bool:
        return value < other if self.mode == "min" else value > other
