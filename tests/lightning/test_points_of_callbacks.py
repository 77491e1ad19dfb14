"""Points that Lightning's and users' callbacks log by themselves: where they are, and once each in a resumed run."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from support.fixed_batches import FixedBatches, random_batch
from support.training import make_module, make_trainer

from bptt.estimators import Chunked
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.checkpoint_files import newest_checkpoint
from bptt.lightning.data import TaskData
from bptt.lightning.loggers import CSVLogger
from bptt.run_folder import RunFolder

LENGTH, CHUNK, BATCHES = 9, 3, 4


class Points(Callback):
    """Logs at four places, as users do it. At a given point a signal arrives, or training ends with an error."""

    def __init__(self, stop: int | None = None, end: str = "signal"):
        self.stop, self.end, self.number = stop, end, 0

    def add(self, place: str, trainer: Trainer) -> None:
        self.number += 1
        if self.number == self.stop and self.end == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.number == self.stop:
            raise RuntimeError
        for logger in trainer.loggers:
            logger.log_metrics({f"own/{place}": 1.0}, step=trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.add("start", trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.add("end", trainer)

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        self.add("update", trainer)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self.add("validation", trainer)


def points(folder: Path, own: Points, interval: Any, *, last: bool, every_n_updates: int | None) -> list[str]:
    """The lines of Lightning's callback and of the user's, after three epochs from the newest checkpoint."""
    torch.manual_seed(4)
    task = FixedBatches([random_batch(LENGTH, 3) for _ in range(BATCHES)])
    task.batches["validation"] = [random_batch(5, 3)]
    module = make_module(task)
    module.estimator = Chunked(CHUNK)
    checkpoint, _ = newest_checkpoint(folder)
    callbacks = [own, LearningRateMonitor(interval)]
    ours = [RunSummary(), Checkpoint(every_n_updates=every_n_updates)]
    trainer = make_trainer(
        default_root_dir=folder,
        callbacks=[*ours, *callbacks] if last else [*callbacks, *ours],
        logger=CSVLogger(folder),
        log_every_n_steps=1,
        max_epochs=3,
        val_check_interval=2,
    )
    try:
        trainer.fit(module, datamodule=TaskData(module), ckpt_path=checkpoint, weights_only=True)
    except (SystemExit, RuntimeError):
        assert own.number >= (own.stop or 0) > 0
    lines = RunFolder(folder).metrics.read_text(encoding="utf-8").splitlines()
    return sorted(line for line in lines if line.split(",")[1].startswith(("own/", "lr-")))


@pytest.mark.parametrize(  # all pairs
    ("interval", "last", "every_n_updates"),
    [
        ("step", False, None),
        ("epoch", True, None),
        ("step", True, 1),
        ("epoch", False, 1),
        ("step", False, 2),
        ("epoch", True, 2),
    ],
)
def test_a_resumed_run_has_each_point_once(
    tmp_path: Path, interval: str, last: bool, every_n_updates: int | None
) -> None:
    """Whatever ends the first attempt: a signal, which stops between two updates, or an error."""
    options: dict[str, Any] = {"last": last, "every_n_updates": every_n_updates}
    own = Points()
    whole = points(tmp_path / "whole", own, interval, **options)
    assert len(set(whole)) == len(whole)
    for end in ("signal", "error"):
        for stop in range(13, own.number, 7):
            folder = tmp_path / f"{end}{stop}"
            points(folder, Points(stop, end), interval, **options)
            assert points(folder, Points(), interval, **options) == whole, f"{end} at point {stop}"


def test_points_are_at_timesteps(tmp_path: Path) -> None:
    """As all curves. At the start of a batch they are one later, because they belong to what follows."""
    lines = points(tmp_path, Points(), "step", last=True, every_n_updates=None)
    steps: dict[str, list[int]] = {}
    for line in lines:
        step, tag, _ = line.split(",")
        steps.setdefault(tag, []).append(int(step))
    ends = [LENGTH * (batch + 1) for batch in range(3 * BATCHES)]
    assert sorted(steps["own/end"]) == ends
    assert sorted(steps["own/start"]) == sorted(steps["lr-SGD"]) == [end - LENGTH + 1 for end in ends]
    assert sorted(steps["own/validation"]) == ends[1::2]
    assert len(steps["own/update"]) == 3 * BATCHES * LENGTH // CHUNK
