"""Runs end early that have learnt enough, or that learn no more, and no others."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import Frozen, make_module, make_trainer
from support.two_processes import Kill, Killed

from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.early_stopping import EarlyStopping
from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.checkpoint_files import newest_checkpoint
from bptt.lightning.data import TaskData
from bptt.tasks.adding import Adding

LEARNS = partial(torch.optim.Adam, lr=0.01)


def run(
    folder: Path, optimizer: Any, *, kill: int | None = None, min_epochs: int | None = None, **options: Any
) -> tuple[str, int]:
    """Train at most twelve batches with four validations. Returns the ending and the number of updates."""
    torch.manual_seed(1)
    task = Adding(length=10, batch_size=4, seed=1, train_batches=12, validation_batches=2, test_batches=1)
    module = make_module(task, optimizer=optimizer)
    stopping = EarlyStopping(**options)
    callbacks = [RunSummary(), stopping, Checkpoint(every_n_updates=1), *([Kill(kill)] if kill else [])]
    settings = {"val_check_interval": 3, "min_epochs": min_epochs}
    trainer = make_trainer(default_root_dir=folder, callbacks=callbacks, **settings)
    trainer.fit(module, datamodule=TaskData(module), ckpt_path=newest_checkpoint(folder)[0], weights_only=True)
    summary = json.loads((folder / "summary.json").read_text())
    return summary["status"], module.counters.batches


def test_a_run_ends_once_the_metric_is_beyond_the_threshold(tmp_path: Path) -> None:
    assert run(tmp_path / "at once", LEARNS, stopping_threshold=100.0) == ("completed", 3)
    assert run(tmp_path / "never", LEARNS, stopping_threshold=-1.0) == ("completed", 12)
    assert run(tmp_path / "large", LEARNS, mode="max", stopping_threshold=-1.0) == ("completed", 3)


def test_a_run_ends_that_learns_no_more(tmp_path: Path) -> None:
    """The first validation is the best one; the second does not improve."""
    assert run(tmp_path / "frozen", Frozen, patience=1) == ("completed", 6)
    assert run(tmp_path / "patient", Frozen, patience=2) == ("completed", 9)


def test_a_run_that_had_to_go_on_to_its_end_was_not_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, LEARNS, stopping_threshold=100.0, min_epochs=1) == ("completed", 12)
    assert "reason" not in json.loads((tmp_path / "summary.json").read_text())
    assert capsys.readouterr().out.count("threshold") == 1


def test_a_resumed_run_keeps_its_patience(tmp_path: Path) -> None:
    """Killed between the second validation and the third."""
    with pytest.raises(Killed):
        run(tmp_path, Frozen, patience=2, kill=8)
    assert run(tmp_path, Frozen, patience=2) == ("completed", 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "least"}, "mode must be min or max, got 'least'"),
        ({"patience": 0}, "patience must be an integer >= 1, got 0"),
        ({"stopping_threshold": "high"}, r"stopping_threshold must be a finite number, got 'high'"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**options)


def test_a_metric_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be one of .*validation/loss.*; got validation/nosuch"):
        run(tmp_path, LEARNS, monitor="validation/nosuch")
