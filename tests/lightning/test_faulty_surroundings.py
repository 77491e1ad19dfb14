"""Training in bad surroundings: a full or missing temporary folder, odd checkpoints, a terminal that goes away."""

import math
import os
import resource
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import fit, make_module, stream

from bptt.atomic_files import naming
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.divergence import Divergence
from bptt.lightning.callbacks.progress import RunProgress
from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.checkpoint_files import DirectCheckpointIO, read
from bptt.lightning.endings import warning_of
from bptt.run_folder import RunFolder, RunStatus


def test_checkpoints_need_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    fit(make_module(stream([6])), callbacks=[Checkpoint()], default_root_dir=tmp_path, limit_val_batches=0)
    assert [path.name for path in RunFolder(tmp_path).checkpoints.iterdir()] == ["last.ckpt"]


def test_a_wrong_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    fit(make_module(stream([6])), callbacks=[Checkpoint()], default_root_dir=tmp_path, limit_val_batches=0)
    path = RunFolder(tmp_path).last_checkpoint
    content = read(path)
    without: Any = {name: value for name, value in content.items() if name != "epoch"}
    for wrong in ([1], {**content, "state_dict": 5}, without, {**content, "state_dict": {"a": 1}}, {"bptt": 3}):
        torch.save(wrong, path)
        with pytest.raises(ValueError, match="a checkpoint must be") as refused:
            read(path)
        assert "\n" not in str(refused.value)


def test_a_disk_that_is_full_within_a_checkpoint_is_named(tmp_path: Path) -> None:
    """Wherever torch is in its archive, it is an OSError, which ends a script in one line."""
    content = {"weights": torch.randn(40, 1000)}
    files = DirectCheckpointIO()
    files.save_checkpoint(content, tmp_path / "whole")
    size = (tmp_path / "whole").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (1, 100, size // 2, size - 1000, size - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OSError, match="File too large"), naming(tmp_path / "part"):
                files.save_checkpoint(content, tmp_path / "part")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_training_outlives_its_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1, encoding="utf-8") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        callbacks = [RunProgress(), RunSummary(), Checkpoint()]
        module = make_module(stream([6, 6]))
        fit(module, callbacks=callbacks, default_root_dir=tmp_path, limit_val_batches=0, enable_progress_bar=True)
        monkeypatch.undo()
    assert RunFolder(tmp_path).status == RunStatus.COMPLETED
    assert RunFolder(tmp_path).last_checkpoint.exists()


def test_a_finite_divergence_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = make_module(stream([6, 6]), optimizer=partial(torch.optim.SGD, lr=1e3))
    fit(module, callbacks=[RunSummary()], default_root_dir=tmp_path, limit_val_batches=0, log_every_n_steps=1)
    summary = RunFolder(tmp_path).read_summary()
    assert summary["status"] == "completed"
    assert summary["warning"].startswith("training diverged, although it went on: the last loss is")
    assert "warning: training diverged" in capsys.readouterr().err


def test_a_divergence_that_was_skipped_is_said(tmp_path: Path) -> None:
    """Every update but the first is left out."""
    module = make_module(stream([6] * 4), optimizer=partial(torch.optim.SGD, lr=1e38))
    callbacks = [RunSummary(), skipping := Divergence(action="skip")]
    fit(module, callbacks=callbacks, default_root_dir=tmp_path, limit_val_batches=0, log_every_n_steps=1)
    assert skipping.skipped > 0
    assert "the last loss is inf" in RunFolder(tmp_path).read_summary()["warning"]


def test_which_losses_are_a_divergence() -> None:
    module = make_module(stream([6]))
    module.mean_loss.first = 1.0
    assert warning_of(module, {"train/loss": 9.9, "validation/loss": 1e9}) is None
    assert "validation is inf" in (warning_of(module, {"train/loss": 1.0, "validation/loss": math.inf}) or "")
    assert "is 11, the first was 1;" in (warning_of(module, {"train/loss": 11.0}) or "")
    module.mean_loss.first = math.nan
    assert "loss is inf; try" in (warning_of(module, {"train/loss": math.inf}) or "")
    assert warning_of(module, {"train/loss": 1.0}) is None
    assert warning_of(module, {"train/loss": 1.0, "validation/loss": math.nan}) is None, "it may have no target"
    assert "validation is nan" in (warning_of(module, {"validation/loss": math.nan}) or ""), "no update was logged yet"
