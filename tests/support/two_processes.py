"""Trains small models as one of two processes, or as the only one: python two_processes.py FOLDER; see its test."""

import math
import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from bptt.estimators import Adaptive, Chunked, Full, Randomized, Sliding
from bptt.layers import LSTM
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.gradient_flow import GradientFlow
from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.checkpoint_files import newest_checkpoint
from bptt.lightning.clipping import Clipping
from bptt.lightning.data import TaskData
from bptt.lightning.loggers import CSVLogger
from bptt.lightning.module import BPTTModule
from bptt.model import SequenceModel
from bptt.tasks.adding import Adding
from bptt.tasks.sequences import Sequences
from bptt.tasks.text import Text

ESTIMATORS: dict[str, Any] = {
    "chunked": lambda: Chunked(5),
    "accumulated": lambda: Chunked(5, update="sequence"),
    "full": lambda: Full(4),
    "sliding": lambda: Sliding(5, 8),
    "randomized": lambda: Randomized(5),
    "adaptive": lambda: Adaptive(0.5, lags=8, every_n_batches=5, num_samples=3),
}


class Killed(BaseException):
    """Simulates SIGKILL, which no process can catch."""


class Kill(Callback):
    """Ends a run in the middle of a batch, before its update number `at`."""

    def __init__(self, at: int):
        self.at = at

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        assert isinstance(pl_module, BPTTModule)
        if pl_module.counters.updates == self.at:
            raise Killed


def train(
    folder: Path, name: str, *, text: Path, num_processes: int, dropout: float = 0.0, kill: int | None = None
) -> None:
    """50 updates, from the folder's newest checkpoint if there is one."""
    torch.manual_seed(1)
    task = Text(length=13, batch_size=4, path=str(text), fractions=(0.9, 0.1, 0.0))
    sizes: dict[str, Any] = {"input_size": task.input_size, "output_size": task.output_size, "hidden_size": 7}
    module = BPTTModule(
        task=task,
        model=SequenceModel(LSTM, **sizes, num_layers=2, dropout=dropout),
        estimator=ESTIMATORS[name](),
        optimizer=partial(torch.optim.SGD, lr=0.5),
        clipping=Clipping("norm"),
    )
    options: dict[str, Any] = {"strategy": "ddp", "devices": num_processes} if num_processes > 1 else {"devices": 1}
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        precision="64-true",
        max_epochs=-1,
        max_steps=50,
        callbacks=[Checkpoint(every_n_updates=1), *([Kill(kill)] if kill else [])],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=1,
        **options,
    )
    trainer.fit(module, datamodule=TaskData(module), ckpt_path=newest_checkpoint(folder)[0], weights_only=True)


class Late(Callback):
    """The second process begins to train later than the first."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        time.sleep(0.4 * trainer.global_rank)


def fit(module: BPTTModule, folder: Path, *, num_processes: int, **options: Any) -> None:
    several = {"strategy": "ddp", "devices": num_processes} if num_processes > 1 else {"devices": 1}
    fixed: dict[str, Any] = {"enable_checkpointing": False, "enable_progress_bar": False, "logger": False}
    fixed |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "accelerator": "cpu", "precision": "64-true"}
    Trainer(default_root_dir=folder, **{**fixed, **several, **options}).fit(module, datamodule=TaskData(module))


def small_module(task: Any, estimator: Any) -> BPTTModule:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"input_size": task.input_size, "output_size": task.output_size, "hidden_size": 4}
    sgd = partial(torch.optim.SGD, lr=0.1)
    return BPTTModule(task=task, model=SequenceModel(LSTM, **sizes), estimator=estimator, optimizer=sgd)


def train_for_a_second(folder: Path, *, num_processes: int) -> None:
    """A run that ends by its time, in an epoch without a validation; each process has a clock of its own."""
    task = Adding(length=10, batch_size=4, seed=1, train_batches=10**6, validation_batches=1, test_batches=1)
    callbacks = [Checkpoint(), Late(), RunSummary()]
    limits: dict[str, Any] = {"max_epochs": -1, "max_time": {"seconds": 1}, "check_val_every_n_epoch": 2}
    fit(small_module(task, Chunked(5)), folder, num_processes=num_processes, callbacks=callbacks, **limits)


def train_ragged(folder: Path, *, num_processes: int) -> None:
    """Sequences of different lengths, so that the processes have different numbers of losses."""
    table = folder.parent / f"ragged_{num_processes}_{os.environ.get('RANK', '0')}.csv"
    rows = [
        f"s{each},{math.sin(each * step)},{math.cos(each + step)}" for each in range(20) for step in range(2 + each)
    ]
    table.write_text("\n".join(["id,x,y", *rows]) + "\n", encoding="utf-8")
    words: dict[str, Any] = {"sequence": "id", "targets": "y", "kind": "numbers", "every_step": True, "batch_size": 8}
    flow = GradientFlow(num_sequences=4, lags=[1, 2])
    module = small_module(Sequences(path=str(table), **words), Full())
    log = CSVLogger(save_dir=folder)
    fit(module, folder, num_processes=num_processes, callbacks=[flow], logger=log, max_steps=2, log_every_n_steps=1)


def train_all(folder: Path, *, num_processes: int) -> None:
    """Every estimator at once, and chunked with dropout at once and in two parts."""
    text = folder.parent / "text.txt"
    for name in ESTIMATORS:
        train(folder / name, name, text=text, num_processes=num_processes)
    dropped = partial(train, name="chunked", text=text, num_processes=num_processes, dropout=0.3)
    dropped(folder / "whole")
    with suppress(Killed):
        dropped(folder / "cut", kill=20)
    dropped(folder / "cut")
    train_for_a_second(folder / "timed", num_processes=num_processes)
    train_ragged(folder / "ragged", num_processes=num_processes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_all(Path(sys.argv[1]), num_processes=int(os.environ.get("WORLD_SIZE", "1")))
