"""Checkpoints of a run: when they are written, and which can be trusted."""

import math
import os
import signal
import subprocess
import threading
import time
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from bptt.contracts import at_least, between, one_of, refusal
from bptt.lightning.loggers import forget_after
from bptt.lightning.module import FORMAT, BPTTModule
from bptt.lightning.processes import any_of
from bptt.tasks.base import Batch

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # of schedulers, of a person, of Slurm before it requeues


class Checkpoint(Callback):
    """Writes `checkpoints/last.ckpt` between two batches, where the run can go on from to the bit, and `best.ckpt`.

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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not at the start of training, which a run that had ended has no more.
        assert isinstance(pl_module, BPTTModule)
        if trainer.ckpt_path is not None:
            forget_after(trainer, pl_module.step_axis)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_when = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        # Here the batch before is over with all that belongs to it, its validation too.
        assert isinstance(pl_module, BPTTModule)
        stop = any_of(self.signal is not None, pl_module.device)
        if stop or any_of(self._due(pl_module.counters.updates), pl_module.device):
            self._save_last(trainer, pl_module)
        if stop:
            name = signal.Signals(self.signal).name if self.signal is not None else "a signal on another process"
            if self.signal == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ and trainer.is_global_zero:
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
            raise KeyboardInterrupt(name)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not validated_in_training(trainer):
            return
        value = monitored(trainer, self.monitor)
        if self.best is None or math.isnan(self.best) or self._better(value, self.best):
            self.best = value
            write(trainer, "best.ckpt")
        self.validated = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_last(trainer, pl_module)
        self._leave_signals()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._leave_signals()

    def _due(self, updates: int) -> bool:
        minutes = (time.monotonic() - self.saved_when) / 60
        return (
            self.validated
            or (self.every_n_updates is not None and updates >= self.saved_at + self.every_n_updates)
            or (self.every_n_minutes is not None and minutes >= self.every_n_minutes)
        )

    def _save_last(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, BPTTModule)
        self.saved_at, self.saved_when, self.validated = module.counters.updates, time.monotonic(), False
        write(trainer, "last.ckpt", keep="previous.ckpt")

    def _better(self, value: float, other: float) -> bool:
        return value < other if self.mode == "min" else value > other

    def _on_signal(self, number: int, _: Any) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt  # asked twice: at once, and without a checkpoint
        self.signal = number

    def _leave_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def write(trainer: Trainer, name: str, *, keep: str | None = None) -> None:
    """Write a checkpoint under a temporary name, and give it its own once it is safe on the disk.

    keep: what the file of the same name that is there already is called from then on.
    """
    for logger in trainer.loggers:
        logger.save()  # curves never end before the checkpoint that they lead to
    path = checkpoint_folder(Path(trainer.default_root_dir)) / name
    partial = path.with_suffix(".partial")
    try:
        trainer.save_checkpoint(partial)
    except OSError:
        partial.unlink(missing_ok=True)  # leaves a full disk room for the summary
        raise
    if not trainer.is_global_zero:
        return
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    if keep is not None and path.exists():
        os.replace(path, path.with_name(keep))
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def validated_in_training(trainer: Trainer) -> bool:
    """Whether the validation that just ended belongs to a training run."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def monitored(trainer: Trainer, name: str) -> float:
    """A metric of the validation that just ended."""
    metrics = trainer.callback_metrics
    if name not in metrics:
        raise ValueError(f"the monitored metric must be one of {', '.join(sorted(metrics))}; got {name}")
    return float(metrics[name])


def checkpoint_folder(run: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run / "checkpoints"


def newest_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """The last checkpoint of a run that is whole, if there is one; and what is wrong with newer ones, a line each."""
    faults = []
    for name in ("last.ckpt", "previous.ckpt"):
        path = checkpoint_folder(run) / name
        if path.exists():
            try:
                read(path)
            except ValueError as error:
                faults.append(str(error))
            else:
                return path, faults
    return None, faults


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; ValueError where its checksums do not fit or it is of another format."""
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
        if torn is not None:
            raise ValueError(f"the checksum of {torn} does not fit")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"a checkpoint must be a whole file written by training, got {path}: {reason}") from error
    found = content.get("bptt", {}).get("format")
    if found != FORMAT:
        raise ValueError(f"a checkpoint must be of format {FORMAT}, got {path} of format {found}; train anew")
    return content


def check_fits(module: BPTTModule, content: dict[str, Any], path: Path) -> None:
    """Refuse to go on from a checkpoint on other data than before, or with another model."""
    before, now = content["bptt"].get("data"), module.task.identity
    if before not in (None, now):  # none in the first checkpoints of this format
        raise ValueError(f"a run must go on with the data it began with, {before}, got {now}; begin another run")
    check_same_model(module, content["state_dict"], path)


def best_metric(run: Path) -> float | None:
    """The best of the metric that a run monitored; None where it kept no checkpoint or was never validated."""
    path, _ = newest_checkpoint(run)
    callbacks = read(path)["callbacks"] if path is not None else {}
    return callbacks.get(Checkpoint.__name__, {}).get("best")


def load_weights(module: LightningModule, path: Path) -> None:
    """Put the weights of a checkpoint into a module; ValueError where it is of another model."""
    if not path.is_file():
        raise ValueError(f"a run must have the checkpoint {path}, which is not there; has it finished a validation?")
    weights = read(path)["state_dict"]
    check_same_model(module, weights, path)
    module.load_state_dict(weights)


def check_same_model(module: LightningModule, weights: dict[str, Any], path: Path) -> None:
    """Refuse weights that have other names or shapes than the module's."""
    own = module.state_dict()
    differing = [name for name in sorted(own | weights) if name not in own or name not in weights]
    differing += [name for name in own if name not in differing and own[name].shape != weights[name].shape]
    if differing:
        name = differing[0]
        shapes = [tuple(side[name].shape) if name in side else "nothing" for side in (own, weights)]
        raise ValueError(
            f"the checkpoint must be of the same model, got {path} where {name} is {shapes[1]} instead of {shapes[0]}; "
            "use the model and task it was trained with"
        )
