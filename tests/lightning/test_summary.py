"""summary.json: how a run ended, and where it stood."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from support.fixed_batches import FixedBatches, random_batch
from support.training import fit, make_module, make_trainer, stream
from torch import Tensor

from bptt.lightning.callbacks.summary import RunSummary
from bptt.tasks import Batch, Split


def summary(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return content


def with_validation(task: FixedBatches) -> FixedBatches:
    task.batches["validation"] = [random_batch(5, 3)]
    return task


def test_completed(tmp_path: Path) -> None:
    module = make_module(with_validation(stream([10, 6])))
    trainer = fit(module, callbacks=[RunSummary()], default_root_dir=tmp_path, log_every_n_steps=1)
    content = summary(tmp_path)
    assert content["status"] == "completed"
    assert content["counters"] == {"updates": 5, "batches": 2, "timesteps": 48}
    assert set(content["metrics"]) == {"train/loss", "validation/loss", "validation/mse"}
    for name, value in content["metrics"].items():
        assert value == pytest.approx(float(trainer.callback_metrics[name]))
    assert content["parameters"] == sum(value.numel() for value in module.model.parameters())
    assert content["versions"]["torch"] == torch.__version__
    assert content["wall_seconds"] > 0
    assert "error" not in content
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_another_number_of_threads_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = {"summary": {"threads": torch.get_num_threads() + 1, "seconds": 0.0, "metrics": {}}}
    module = make_module(stream([6]))
    RunSummary().on_load_checkpoint(make_trainer(default_root_dir=tmp_path), module, checkpoint)
    now = torch.get_num_threads()
    assert f"resumed with {now} threads instead of {now + 1}" in capsys.readouterr().err


class RaisingAt(FixedBatches):
    """Fails in the loss of its third batch, or is interrupted while it makes it."""

    exception: BaseException = ValueError("the target is missing\nin sequence 2")

    def batch(self, split: Split, index: int) -> Batch:
        self.index = index
        if split == "train" and index == 2 and isinstance(self.exception, KeyboardInterrupt):
            raise self.exception
        return super().batch(split, index)

    def errors(self, predictions: Tensor, targets: Tensor) -> Tensor:
        if self.index == 2:
            raise self.exception
        return super().errors(predictions, targets)


def raising() -> RaisingAt:
    return RaisingAt([random_batch(6, 3) for _ in range(4)])


def test_failed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the target is missing"):
        fit(make_module(raising()), callbacks=[RunSummary()], default_root_dir=tmp_path, limit_val_batches=0)
    content = summary(tmp_path)
    assert content["status"] == "failed"
    assert content["error"] == "ValueError: the target is missing"
    assert content["counters"] == {"updates": 4, "batches": 2, "timesteps": 36}


@pytest.fixture
def _signals() -> Iterator[None]:
    """Lightning turns Ctrl-C off while it ends; on again for the other tests."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_signals")
def test_interrupted(tmp_path: Path) -> None:
    task = raising()
    task.exception = KeyboardInterrupt()
    with pytest.raises(SystemExit):
        fit(make_module(task), callbacks=[RunSummary()], default_root_dir=tmp_path, limit_val_batches=0)
    content = summary(tmp_path)
    assert content["status"] == "interrupted"
    assert content["counters"]["updates"] >= 2


class Requeued(Callback):
    """Leaves as submitit does when the time of a Slurm job is over and it has queued the job again."""

    def on_train_batch_start(self, *_: Any) -> None:
        names: dict[str, Any] = {"__name__": "submitit.core.job_environment"}
        exec("import sys\ndef leave():\n    sys.exit(-1)", names)
        names["leave"]()


@pytest.mark.usefixtures("_signals")
def test_requeued(tmp_path: Path) -> None:
    module = make_module(stream([6]))
    with pytest.raises(SystemExit):
        fit(module, callbacks=[RunSummary(), Requeued()], default_root_dir=tmp_path, limit_val_batches=0)
    assert summary(tmp_path)["status"] == "interrupted"


class Observer(Callback):
    """Reads the file after every batch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.seen.append(summary(Path(trainer.default_root_dir)))


def test_running_with_the_scores_of_the_last_validation(tmp_path: Path) -> None:
    observer, module = Observer(), make_module(with_validation(stream([6, 6])))
    callbacks = [RunSummary(), observer]
    fit(module, callbacks=callbacks, default_root_dir=tmp_path, val_check_interval=1, num_sanity_val_steps=1)
    assert [content["status"] for content in observer.seen] == ["running", "running"]
    assert [content["counters"]["batches"] for content in observer.seen] == [0, 1]
    assert ["validation/loss" in content["metrics"] for content in observer.seen] == [False, True]


def test_a_score_that_is_no_number_is_null(tmp_path: Path) -> None:
    """JSON knows no nan."""
    task = with_validation(stream([6]))
    task.batches["validation"][0].targets[0] = float("nan")
    fit(make_module(task), callbacks=[RunSummary()], default_root_dir=tmp_path)
    assert "NaN" not in (tmp_path / "summary.json").read_text()
    assert summary(tmp_path)["metrics"]["validation/loss"] is None
    assert summary(tmp_path)["status"] == "completed"
