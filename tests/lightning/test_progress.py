"""Terminal output of a run without a limit, and of a resumed run."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.training import fit, make_module, make_trainer, stream

from bptt.lightning.callbacks import progress
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.progress import RunProgress
from bptt.lightning.checkpoint_files import newest_checkpoint
from bptt.lightning.data import TaskData


def shown(folder: Path, **options: Any) -> str:
    """Terminal output of a run with three batches per epoch."""
    progress = RunProgress()
    progress.console = Console(file=io.StringIO(), force_terminal=True, width=150)
    module = make_module(stream([6, 6, 6]))
    trainer = make_trainer(
        default_root_dir=folder,
        callbacks=[progress, Checkpoint()],
        enable_progress_bar=True,
        limit_val_batches=0,
        **options,
    )
    trainer.fit(module, datamodule=TaskData(module), ckpt_path=newest_checkpoint(folder)[0], weights_only=True)
    file = progress.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(
    ("options", "last"), [({"max_epochs": 2}, "batch 6/6"), ({"max_epochs": -1, "max_steps": 8}, "batch 4")]
)
def test_batches_of_how_many_if_known(tmp_path: Path, options: dict[str, int], last: str) -> None:
    """Each batch has two updates."""
    assert last in shown(tmp_path, **options)


def test_redirected_output_has_a_line_before_the_first_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After ten seconds, here at once, and then after pauses that double."""
    monkeypatch.setattr(progress, "FIRST_LINE", 0.0)
    module = make_module(stream([6, 6, 6]))
    options: dict[str, Any] = {"enable_progress_bar": True, "limit_val_batches": 0, "log_every_n_steps": 1}
    fit(module, callbacks=[RunProgress()], default_root_dir=tmp_path, **options)
    lines = [line for line in capsys.readouterr().out.splitlines() if "% done" in line]
    assert lines[0].startswith("33% done, batch 1/3, 0:00:0")
    assert re.fullmatch(r"100% done, batch 3/3, 0:00:00 left, 0:00:0\d passed, loss [\d.]+", lines[-1])


def test_a_resumed_run_continues_its_count(tmp_path: Path) -> None:
    shown(tmp_path, max_epochs=1)
    output = shown(tmp_path, max_epochs=2)
    assert "batch 6/6" in output
    assert "batch 1/6" not in output
