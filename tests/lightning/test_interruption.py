"""Runs that are asked to stop, by a signal or a limit, between any two updates; resumed, they are the whole run."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from support.fixed_batches import FixedBatches, random_batch
from support.training import fit, make_module, make_trainer, stream
from torch import Tensor

from bptt.estimators import Chunked, Estimator, Sliding
from bptt.lightning.callbacks import checkpoint
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.gradient_flow import GradientFlow
from bptt.lightning.callbacks.jacobian_spectrum import JacobianSpectrum
from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.checkpoint_files import newest_checkpoint, read, write
from bptt.lightning.data import TaskData
from bptt.lightning.loggers import CSVLogger
from bptt.lightning.module import BPTTModule
from bptt.lightning.stop_signals import keep_for_training, late, signals_of_a_run
from bptt.run_folder import RunFolder, RunStatus
from bptt.tasks import Batch

LENGTHS = (10, 7, 12)  # of an epoch's batches; chunks of 4 make 3 + 2 + 3 updates


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Lightning ignores Ctrl-C after an interruption; set it back for the other tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class SignalAt(Callback):
    """Sends a signal to this process at an update, or at a validation batch (counted over all validations)."""

    def __init__(self, *, update: int | None = None, validation: int | None = None, number: int = signal.SIGTERM):
        self.update, self.validation, self.number = update, validation, number
        self.seen = 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        assert isinstance(pl_module, BPTTModule)
        if pl_module.counters.updates == self.update:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, *_: Any) -> None:
        self.seen += 1
        if self.seen == self.validation:
            os.kill(os.getpid(), self.number)


class Scores(Callback):
    """Validation losses, with the updates before each."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, BPTTModule)
        self.seen.append((pl_module.counters.updates, float(trainer.callback_metrics["validation/loss"])))


def run(
    folder: Path,
    *callbacks: Callback,
    make: Any = lambda: Chunked(4),
    every_n_updates: int | None = None,
    suppressed: tuple[type[BaseException], ...] = (SystemExit,),
    **options: Any,
) -> tuple[BPTTModule, list[tuple[int, float]]]:
    """Two epochs with a validation of three batches after each training batch, from the newest checkpoint."""
    torch.manual_seed(4)
    batches = []
    for index, length in enumerate(LENGTHS):
        reset = torch.full((3,), index == 0)
        batches.append(Batch(torch.randn(length, 3, 2), torch.randn(length, 3, 2), None, reset))
    task = FixedBatches(batches)
    task.batches["validation"] = [random_batch(5, 3) for _ in range(3)]
    module, scores = (
        make_module(task, optimizer=partial(torch.optim.Adam, lr=0.05), num_layers=2, dropout=0.2),
        Scores(),
    )
    module.estimator = make()
    checkpoint, faults = newest_checkpoint(folder)
    assert not faults
    options = {"max_epochs": 2, "val_check_interval": 1, **options}
    trainer = make_trainer(
        default_root_dir=folder,
        callbacks=[*callbacks, scores, RunSummary(), Checkpoint(every_n_updates=every_n_updates)],
        **options,
    )
    with suppress(*suppressed):
        trainer.fit(module, datamodule=TaskData(module), ckpt_path=checkpoint, weights_only=True)
    return module, scores.seen


def assert_same(one: BPTTModule, other: BPTTModule) -> None:
    assert one.counters == other.counters
    for name, weight in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight), name


def timestep(folder: Path) -> int:
    found: int = read(RunFolder(folder).last_checkpoint)["bptt"]["timestep"]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[BPTTModule, list[tuple[int, float]]]:
    """The run that nothing interrupts."""
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("update", [2, 7, 9])
def test_a_signal_between_two_updates(whole: Any, tmp_path: Path, update: int) -> None:
    """It takes effect at once. The resumed run equals the uninterrupted one to the bit. Update 7 starts a batch."""
    cut, before = run(tmp_path, SignalAt(update=update))
    assert cut.counters.updates == update
    assert 0 < timestep(tmp_path) < 12
    assert RunFolder(tmp_path).status == RunStatus.INTERRUPTED
    again, after = run(tmp_path)
    assert_same(whole[0], again)
    assert before + after == whole[1]


@pytest.mark.parametrize("update", [6, 15])
def test_what_the_end_of_an_epoch_looks_at_is_kept(tmp_path: Path, update: int) -> None:
    """The metrics of a validation before the checkpoint, for callbacks such as Lightning's early stopping."""
    options: dict[str, Any] = {"max_epochs": 4, "val_check_interval": 2}
    patient = lambda: EarlyStopping("validation/loss", min_delta=1e9, patience=1, check_on_train_epoch_end=True)
    whole, _ = run(tmp_path / "whole", patient(), **options)
    assert whole.counters.updates == 16
    run(tmp_path / "cut", SignalAt(update=update), patient(), **options)
    again, _ = run(tmp_path / "cut", patient(), **options)
    assert_same(whole, again)


class SignalAtEnd(Callback):
    """Sends a signal when training is over, while others still draw their last pictures."""

    def __init__(self, number: int):
        self.number = number

    def on_fit_end(self, *_: Any) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_at_the_end_completes_the_run(tmp_path: Path, number: int) -> None:
    """Its sweep stops afterwards."""
    run(tmp_path, SignalAtEnd(number))
    assert RunFolder(tmp_path).status == RunStatus.COMPLETED
    assert late.pop() == number
    assert not late


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_after_a_run_was_completed(tmp_path: Path, number: int) -> None:
    """It is kept for the sweep until the handlers of before are back."""
    seen: list[int] = []
    before = signal.signal(number, lambda number, _: seen.append(number))
    try:
        with signals_of_a_run():
            run(tmp_path)
            assert RunFolder(tmp_path).status == RunStatus.COMPLETED
            os.kill(os.getpid(), number)
        assert late.pop() == number
        os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)
    assert seen == [number]
    assert not late


def test_signals_after_an_interrupted_run_are_those_of_before(tmp_path: Path) -> None:
    """Lightning puts the handlers of training back after the run's end: a worker of joblib could not be stopped."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        run(tmp_path, SignalAt(update=2))
        assert not seen
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_exit_code_names_the_signal(tmp_path: Path, number: int) -> None:
    with pytest.raises(SystemExit) as left, signals_of_a_run():
        run(tmp_path, SignalAt(update=2, number=number), suppressed=())
    assert left.value.code == 128 + number


def test_a_second_signal_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line names the checkpoint that is there, not the one that was begun."""
    whole = write

    def interrupted(trainer: Trainer, path: Path, **options: Any) -> None:
        if path.exists():  # the second time
            raise KeyboardInterrupt
        whole(trainer, path, **options)

    monkeypatch.setattr(checkpoint, "write", interrupted)
    run(tmp_path, every_n_updates=2)
    saved = read(RunFolder(tmp_path).last_checkpoint)["bptt"]["counters"]["updates"]
    assert f"interrupted by Ctrl-C: saved after {saved} updates" in capsys.readouterr().err


def test_with_the_shorter_chunk_first(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", make=lambda: Chunked(4, ragged="first"))
    run(tmp_path / "cut", SignalAt(update=6), make=lambda: Chunked(4, ragged="first"))
    assert timestep(tmp_path / "cut") == 4
    again, _ = run(tmp_path / "cut", make=lambda: Chunked(4, ragged="first"))
    assert_same(whole, again)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_slurms_signal_before_training(whole: Any, tmp_path: Path, number: signal.Signals) -> None:
    """A run that was still importing stops with a checkpoint before its first update; the next start takes all."""
    keep_for_training(number)
    os.kill(os.getpid(), number)
    cut, _ = run(tmp_path)
    assert cut.counters.updates == 0
    assert RunFolder(tmp_path).status == RunStatus.INTERRUPTED
    again, scores = run(tmp_path)
    assert_same(whole[0], again)
    assert scores == whole[1]


@pytest.mark.parametrize("batch", [1, 9, 16])
def test_a_signal_during_a_validation(whole: Any, tmp_path: Path, batch: int) -> None:
    """It takes effect before the next validation batch; the resumed run repeats the validation."""
    _, before = run(tmp_path, SignalAt(validation=batch))
    assert len(before) == (batch - 1) // 3, "the validation is not over"
    again, after = run(tmp_path)
    assert_same(whole[0], again)
    assert before + after == whole[1]


def test_other_estimators_stop_after_the_batch(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", make=lambda: Sliding(4, 6))
    cut, _ = run(tmp_path / "cut", SignalAt(update=1), make=lambda: Sliding(4, 6))
    assert cut.counters.updates == 3
    again, _ = run(tmp_path / "cut", make=lambda: Sliding(4, 6))
    assert_same(whole, again)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_one_line_says_what_was_saved_and_how_to_resume(tmp_path: Path, number: Any, capsys: Any) -> None:
    run(tmp_path, SignalAt(update=2, number=number))
    lines = [line for line in capsys.readouterr().err.splitlines() if "interrupted by" in line]
    path = RunFolder(tmp_path).last_checkpoint
    name = signal.Signals(number).name
    assert lines == [f"interrupted by {name}: saved after 2 updates in {path}; resume={tmp_path} goes on"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_signals_that_were_ignored_at_the_start_stay_so(number: signal.Signals) -> None:
    """nohup and shells ignore them for commands that are to go on."""
    code = (
        "import signal; from bptt.lightning.stop_signals import StopSignals; stop = StopSignals(); stop.catch(); "
        f"signal.raise_signal({number:d}); print(stop.received); signal.raise_signal(15); print(stop.received)"
    )
    command = [sys.executable, "-c", f"import os, signal, sys; signal.signal({number:d}, signal.SIG_IGN); "
               f"os.execv(sys.executable, [sys.executable, '-c', {code!r}])"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "15"]


def test_ctrl_c_while_an_interrupted_run_ends(tmp_path: Path, capsys: Any) -> None:
    """A person presses it again; the status is still written."""

    class Again(Callback):
        def on_exception(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    callbacks = [SignalAt(update=1, number=signal.SIGINT), Checkpoint(), Again(), RunSummary()]
    with pytest.raises(SystemExit):
        fit(make_module(stream([6, 6])), callbacks=callbacks, default_root_dir=tmp_path, limit_val_batches=0)
    assert RunFolder(tmp_path).read_summary()["status"] == "interrupted"
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_ctrl_c_before_signals_are_caught_is_named(tmp_path: Path, capsys: Any) -> None:
    """Python's own handler raises the exception without a text."""

    class Interrupt(Callback):
        def on_validation_start(self, *_: Any) -> None:
            raise KeyboardInterrupt

    run(tmp_path, Interrupt())
    assert "interrupted by Ctrl-C: no checkpoint was written yet" in capsys.readouterr().err


class StepsOfLightning(Callback):
    """The steps at which Lightning's own callbacks, such as LearningRateMonitor, log at the start of each batch."""

    def __init__(self, stop: int | None = None):
        self.stop = stop
        self.seen: list[tuple[int, int]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.seen.append((pl_module.counters.batches, trainer.fit_loop.epoch_loop._batches_that_stepped))
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [3, 4, 5, 6])
@pytest.mark.parametrize("val_check_interval", [1, 2, 3])
@pytest.mark.parametrize("every_n_updates", [None, 1])
def test_a_resumed_run_counts_steps_as_lightning_does(
    tmp_path: Path, stop: int, val_check_interval: int, every_n_updates: int | None
) -> None:
    """They were one too many after a validation, and one more after each resumption."""
    options: dict[str, Any] = {"val_check_interval": val_check_interval, "every_n_updates": every_n_updates}
    steps = StepsOfLightning(stop)
    run(tmp_path, steps, **options)
    assert len(steps.seen) == stop
    for number in (2, None):
        steps = StepsOfLightning(number)
        run(tmp_path, steps, **options)
        assert steps.seen == [(batches, batches) for batches, _ in steps.seen]
    assert steps.seen[-1] == (2 * len(LENGTHS) - 1, 2 * len(LENGTHS) - 1)


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("logged", ["", "curves", "metrics.csv"])
def test_a_folder_that_is_moved_during_training(tmp_path: Path, replaced: bool, logged: str) -> None:
    """The run ends at its next checkpoint, and writes nothing at the former path, which another run may use."""

    class Move(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            if not (tmp_path / "moved").exists():
                (tmp_path / "run").rename(tmp_path / "moved")
                if replaced:
                    (tmp_path / "run").mkdir()

    (tmp_path / "run").mkdir()
    looks: list[Callback] = [GradientFlow(every_n_updates=1), JacobianSpectrum(every_n_updates=1)]
    looks = looks if logged == "curves" else []
    logger = CSVLogger(tmp_path / "run") if logged == "metrics.csv" else False
    with pytest.raises(
        FileNotFoundError, match=r"a run folder must stay where it is during training, got .*/run moved"
    ):
        run(tmp_path / "run", *looks, Move(), logger=logger, log_every_n_steps=1)
    assert not (tmp_path / "run").exists() or list((tmp_path / "run").iterdir()) == []
    assert RunFolder(tmp_path / "moved").status == RunStatus.INTERRUPTED


@pytest.mark.parametrize("max_steps", [2, 12])
def test_updates_are_limited_within_a_batch(whole: Any, tmp_path: Path, max_steps: int) -> None:
    """The run ends exactly at the update, after a last validation. A run of more updates resumes there."""
    cut, scores = run(tmp_path, max_steps=max_steps)
    assert cut.counters.updates == max_steps
    assert scores[-1][0] == max_steps
    summary = RunFolder(tmp_path).read_summary()
    assert (summary["status"], summary["reason"]) == ("stopped", f"trainer.max_steps={max_steps}")
    again, _ = run(tmp_path)
    assert_same(whole[0], again)


def test_a_run_without_an_update_is_not_completed(tmp_path: Path, capsys: Any) -> None:
    run(tmp_path, limit_train_batches=0)
    summary = RunFolder(tmp_path).read_summary()
    assert (summary["status"], summary["reason"]) == ("stopped", "no update was made")
    assert "stopped: no update was made; 0 updates" in capsys.readouterr().out


def test_time_is_limited_within_a_batch(tmp_path: Path, capsys: Any) -> None:
    cut, _ = run(tmp_path, max_time={"microseconds": 1})
    assert cut.counters.updates == 1
    summary = RunFolder(tmp_path).read_summary()
    assert summary["status"] == "stopped"
    assert summary["reason"].startswith("trainer.max_time, after ")
    assert "1 updates, 0 of 6 batches" in capsys.readouterr().out


def test_the_rest_of_a_batch_is_what_the_estimator_would_have_gone_on_with() -> None:
    """Checked at every border of every chunk size, with the shorter chunk first or last."""

    def updates(estimator: Estimator, batch: Batch, state: Tensor) -> list[tuple[int, int, Tensor, Tensor]]:
        found = []
        for update in estimator.updates(module.model, module.task.loss, batch, (state,)):
            gradients = [each.grad.flatten() for each in module.model.parameters() if each.grad is not None]
            found.append((update.start, update.stop, torch.cat([torch.zeros(0), *gradients]), update.state[0]))
            module.model.zero_grad()
        return found

    batch = random_batch(13, 2)
    batch.mask = torch.zeros(13, 2, dtype=torch.bool)
    batch.mask[[2, 11, 12]] = True  # all losses of the rest are in its last chunk; those of the whole batch are not
    module = make_module(FixedBatches([batch]), hidden_size=3)
    state = torch.zeros(2, 3)
    for size in range(1, 14):
        for ragged in ("first", "last", "auto"):
            estimator = Chunked(size, ragged=ragged)
            rest = estimator.rest()
            assert rest is not None
            whole = updates(estimator, batch, state)
            for index, (_, stop, _, kept) in enumerate(whole[:-1], start=1):
                found = updates(rest, batch.between(stop, 13), kept)
                assert [(first + stop, last + stop) for first, last, *_ in found] == [
                    each[:2] for each in whole[index:]
                ]
                for one, other in zip(found, whole[index:]):
                    assert torch.equal(one[2], other[2])
                    assert torch.equal(one[3], other[3])
