"""The run folder: the names of its files, how its run ended, and its lock. Needs the standard library alone."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple


class RunStatus(StrEnum):
    """State of a run; every one but `MISSING` is a value of `status` in its summary.

    A run whose summary says `running` is `INTERRUPTED` if no process holds its lock.
    `STOPPED`: ended by `max_time` or `max_steps` before its last epoch was over. `PRUNED`: ended by its sweep.
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
        """Nothing is left to do for the run, unless it is made longer."""
        return self in (RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.PRUNED)

    @property
    def has_score(self) -> bool:
        """The run has trained for all of its budget, so that its last metrics can be compared."""
        return self in (RunStatus.COMPLETED, RunStatus.STOPPED)

    @property
    def is_failure(self) -> bool:
        return self in (RunStatus.DIVERGED, RunStatus.FAILED)


class RunFolder(NamedTuple):
    """Names of everything that a run keeps in its folder. No other file of the project spells them out."""

    path: Path

    @property
    def settings(self) -> Path:
        """Folder of the configuration, as Hydra lays it out."""
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
        """The last checkpoint but one, in case the newest is torn."""
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
        """Scores of every validation, which the other runs of a pruned sweep read."""
        return self.path / "validations.json"

    @property
    def scores(self) -> Path:
        """Scores that were measured after training, at a checkpoint."""
        return self.path / "scores.json"

    @property
    def gradient_flow(self) -> Path:
        """The last figure of the gradient flow."""
        return self.path / "gradient_flow.png"

    def curves(self, name: str) -> Path:
        """Curves of all looks of a callback, as arrays."""
        return self.path / "curves" / f"{name}.npz"

    @property
    def events(self) -> list[Path]:
        """TensorBoard's event files, the oldest first."""
        return sorted(path for path in self.path.glob("events.out.tfevents.*") if path.is_file())

    @property
    def has_checkpoints(self) -> bool:
        return any(self.checkpoints.glob("*.ckpt"))

    @property
    def holds_a_run(self) -> bool:
        return self.summary.exists() or self.has_checkpoints

    def read_summary(self) -> dict[str, Any]:
        """The content of the summary; ValueError, in one line, if it is missing, unreadable or not a summary."""
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
        """The status in the summary, corrected by the lock; `MISSING` if there is no readable summary."""
        try:
            found = RunStatus(self.read_summary()["status"])
        except ValueError:
            return RunStatus.MISSING
        return RunStatus.INTERRUPTED if found == RunStatus.RUNNING and not self.is_locked else found

    @contextmanager
    def locked(self, *, key: str = "hydra.run.dir") -> Iterator[None]:
        """Keep other processes from running in this folder, if it exists. The lock ends with the process.

        ValueError, with the name `key` of the setting, if another process holds it.
        """
        if not self.path.is_dir():
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{key} must be a folder that no other run is using, got {self.path}") from None
            yield
        finally:
            os.close(handle)

    @property
    def is_locked(self) -> bool:
        """True if a run, of this process or another, is using the folder."""
        try:
            with self.locked():
                return False
        except ValueError:
            return True
