"""Callbacks for jobs of a sweep: they change the process, write down what they find, fail, or send a signal."""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

import torch
from lightning import Callback, LightningModule, Trainer

from bptt.tasks import Split
from bptt.tasks.adding import Adding


class Meddle(Callback):
    """Process-wide settings that a job can change for the jobs after it."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
        os.environ["PL_GLOBAL_SEED"] = "7"


class Observe(Callback):
    """Records the process-wide settings at the start of a job."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = {
            "threads": torch.get_num_threads(),
            "dtype": str(torch.get_default_dtype()),
            "deterministic": torch.get_deterministic_debug_mode(),
            "precision": torch.get_float32_matmul_precision(),
            "benchmark": torch.backends.cudnn.benchmark,
            "seed": os.environ.get("PL_GLOBAL_SEED"),
            "event_files": sum("tfevents" in os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()),
            "threads_alive": threading.active_count(),
        }
        (Path(trainer.default_root_dir) / "found.json").write_text(json.dumps(found))


class Fail(Callback):
    """An error that nobody foresaw, at the third batch of the job with seed 7."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if self.seed == 7 and batch_idx == 2:
            raise RuntimeError("nobody foresaw this")


class Threads(Callback):
    """Writes their number into the run folder."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (Path(trainer.default_root_dir) / "threads").write_text(str(torch.get_num_threads()))


class SignalAtEnd(Callback):
    """Sends SIGTERM to this process when training is over, while others still draw their last pictures."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class Leave(Callback):
    """Ends the process as if all were well, at the third batch of the job with seed 1."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if self.seed == 1 and batch_idx == 2:
            sys.exit(0)


class LeavingTask(Adding):
    """Ends the process at its first batch."""

    def batch(self, split: Split, index: int) -> NoReturn:
        sys.exit(0)


class Text(Callback):
    """Takes a text for a number."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        float("abc")


class Several(Callback):
    """Takes several numbers for one."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        float(torch.zeros(3))
