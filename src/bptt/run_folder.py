"""The run folder: names of its files, status of its run, and its lock. Imports no library but the standard one."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from bptt.folder_lock import FolderInUseError, take_lock

LOCK_TRIES = 10  # whoever asks `is_locked` holds the lock for some microseconds, which is no run
LOCK_PAUSE = 0.02  # seconds between two tries


class RunStatus(StrEnum):
    """Status of a run. All but `MISSING` occur as `status` in its summary.

    A run with status `running` in its summary counts as `INTERRUPTED` if no process holds its lock.
    `STOPPED`: ended by `max_time` or `max_steps` before its last epoch was complete. `PRUNED`: ended by its sweep.
    """

    MISSING = "missing"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    STOPPED = "stopped"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"

    @property
    def is_finished(self) -> bool:
        """True if the run has nothing left to do unless it is extended."""
        return self in (RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.PRUNED)

    @property
    def has_score(self) -> bool:
        """True if the run used its whole budget, so that its last metrics are comparable."""
        return self in (RunStatus.COMPLETED, RunStatus.STOPPED)

    @property
    def is_failure(self) -> bool:
        return self in (RunStatus.DIVERGED, RunStatus.FAILED)


class RunFolder(NamedTuple):
    """Paths of all files in a run folder. No other module contains these names."""

    path: Path

    @property
    def settings(self) -> Path:
        """Folder of Hydra's configuration files."""
        return self.path / ".hydra"

    @property
    def config(self) -> Path:
        return self.settings / "config.yaml"

    @property
    def overrides(self) -> Path:
        return self.settings / "overrides.yaml"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The last checkpoint but one, used if the newest is damaged."""
        return self.checkpoints / "previous.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def metrics(self) -> Path:
        """Scalars of the CSV logger."""
        return self.path / "metrics.csv"

    @property
    def validations(self) -> Path:
        """Scores of every validation, read by the other runs of a pruned sweep."""
        return self.path / "validations.json"

    @property
    def scores(self) -> Path:
        """Scores measured after training at a checkpoint."""
        return self.path / "scores.json"

    @property
    def gradient_flow(self) -> Path:
        """Latest figure of the gradient flow."""
        return self.path / "gradient_flow.png"

    @property
    def confusion_matrix(self) -> Path:
        """Figure of the classes that the last validation confused, for tasks with classes."""
        return self.path / "confusion_matrix.png"

    @property
    def results(self) -> tuple[Path, ...]:
        """The files that training writes beside settings, checkpoints, curves and events."""
        return (self.summary, self.metrics, self.validations, self.scores, self.gradient_flow, self.confusion_matrix)

    def curves(self, name: str) -> Path:
        """Arrays of all looks of a callback."""
        return self.path / "curves" / f"{name}.npz"

    @property
    def events(self) -> list[Path]:
        """TensorBoard event files, oldest first."""
        return sorted(self.path.glob("events.out.tfevents.*"))

    @property
    def has_checkpoints(self) -> bool:
        return any(self.checkpoints.glob("*.ckpt"))

    @property
    def holds_a_run(self) -> bool:
        return self.summary.exists() or self.has_checkpoints

    def read_summary(self) -> dict[str, Any]:
        """Content of the summary. ValueError with one line if it is missing, unreadable or not a summary."""
        if self.summary.exists() and not self.summary.is_file():  # reading a pipe would wait for ever
            raise ValueError(f"{self.summary.name} is no file")
        try:
            summary = json.loads(self.summary.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"it has no {self.summary.name}") from None
        except (ValueError, OSError, RecursionError) as error:
            raise ValueError(f"{self.summary.name} cannot be read: {' '.join(str(error).split())}") from error
        if not (
            isinstance(summary, dict)
            and summary.get("status") in list(RunStatus)
            and isinstance(summary.get("metrics"), dict)
        ):
            raise ValueError(f"{self.summary.name} has no status and metrics")
        return summary

    @property
    def status(self) -> RunStatus:
        """Status in the summary, or `INTERRUPTED` if it is `running` without a lock; `MISSING` without a summary."""
        try:
            status = RunStatus(self.read_summary()["status"])
        except ValueError:
            return RunStatus.MISSING
        return RunStatus.INTERRUPTED if status == RunStatus.RUNNING and not self.is_locked else status

    @contextmanager
    def locked(self, *, key: str = "hydra.run.dir") -> Iterator[None]:
        """Hold the lock of this folder; do nothing if the folder does not exist. The lock ends with the process.

        FolderInUseError, naming the setting `key`, if another process holds the lock.
        """
        if not self.path.is_dir():
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            for _ in range(LOCK_TRIES):
                if take_lock(handle, fcntl.LOCK_EX):
                    break
                time.sleep(LOCK_PAUSE)
            else:
                raise FolderInUseError(f"{key} must be a folder that no other run is using, got {self.path}")
            yield
        finally:
            os.close(handle)

    @property
    def is_locked(self) -> bool:
        """True if a run of this or another process is using the folder."""
        if not self.path.is_dir():
            return False
        handle = os.open(self.path, os.O_RDONLY)
        try:
            return not take_lock(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)
