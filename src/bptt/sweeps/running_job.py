"""One job of a sweep, in the process that runs it: its run's folder, its lines in the manifest, and its turn."""

import logging
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from bptt.configuration.build import is_first_process
from bptt.configuration.errors import FAULTS, one_line
from bptt.configuration.paths import with_absolute_paths
from bptt.contracts import refusal
from bptt.folder_lock import FolderInUseError
from bptt.lightning.stop_signals import early, leaving_is_a_failure
from bptt.lightning.terminal import say
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.hydra_files import save_settings
from bptt.runs.reading import finite
from bptt.runs.resumption import check_configuration
from bptt.sweeps.first_process import attempt_of_job, decision_of_another
from bptt.sweeps.local_workers import worker_stops
from bptt.sweeps.manifest import Manifest, files_digest, identity, job_state, recorded_state, summary_hash
from bptt.sweeps.names import as_written
from bptt.sweeps.restored_process import freed_memory, restored_settings

if TYPE_CHECKING:
    from lightning import Trainer

PAUSE = 0.5  # seconds until a trial asks again whether an equal one has ended
SEVERAL_DEVICES = "use hydra/launcher=slurm, which gives every job its own processes, or torchrun for one run at a time"


class RunningJob:
    """A job's folder, its lines in the manifest of its sweep, and who decides that it is trained.

    folder: of its run. name: the folder, relative to the sweep's. identifying: fields of all its lines.
    in_study: true for a trial of Optuna, which may draw an equal one at the same time. in_slurm: true for a job that
    may have several processes. decision: of the first of these, for the others to wait for.
    """

    def __init__(self, config: DictConfig, hydra: HydraConf) -> None:
        self.started = time.monotonic()
        self.config = with_absolute_paths(config, Path(hydra.runtime.cwd))
        # Absolute, because hydra.job.chdir=true has changed the working directory.
        self.folder, sweep = Path(hydra.runtime.output_dir).absolute(), Path(hydra.runtime.cwd, hydra.sweep.dir)
        self.log = self.folder / f"{hydra.job.name}.log"
        self.name = os.path.relpath(self.folder, sweep)
        self.manifest = Manifest(sweep)
        self.in_study = hydra.sweeper._target_.endswith("OptunaSweeper")
        self.in_slurm = "slurm" in hydra.launcher._target_.lower()
        self.decision = decision_of_another(self.manifest, self.name) if self.in_slurm else None
        self.overrides = as_written(hydra.overrides.task)
        attempt = attempt_of_job() if self.in_slurm else None
        self.identifying = {"overrides": self.overrides} | ({"attempt": attempt} if attempt else {})

    @property
    def seconds(self) -> float:
        """Since the job began."""
        return round(time.monotonic() - self.started, 3)

    def identify(self, hydra: HydraConf) -> None:
        """Let all further lines name what the job's configuration comes from."""
        self.identifying["identity"] = identity(self.overrides, files=files_digest(hydra))

    def record(self, state: RunStatus, **results: Any) -> None:
        """Add a line to the manifest, from the first process."""
        if is_first_process():
            self.manifest.add(self.name, **self.identifying, state=state, **results)

    @property
    def is_skipped(self) -> bool:
        """True in a worker that has been stopped, and if another job has failed in a sweep that fails fast."""
        fails_fast = self.config.sweep.fail_fast and self.decision is None
        return worker_stops() or (fails_fast and self.manifest.failed_in_this_launch())

    def skip(self) -> None:
        """Leave the job as it is."""
        self.release_others()
        remove_unused(self.folder, self.log)

    def release_others(self) -> None:
        """Add the line that the job's other processes wait for. An earlier failure stays the newest state."""
        if "attempt" in self.identifying:
            earlier = self.manifest.newest().get(self.name, {})
            has_failed = recorded_state(earlier).is_failure
            kept = {key: earlier[key] for key in ("error", "summary") if has_failed and key in earlier}
            self.record(recorded_state(earlier) if has_failed else RunStatus.MISSING, **kept)

    @property
    def is_taken(self) -> bool:
        """True as long as another process trains an equal job, or has to decide first."""
        if self.decision is not None:
            return not self.decision.is_made
        return self.in_study and RunFolder(self.folder).is_locked

    @property
    def is_finished(self) -> bool:
        if self.decision is not None:
            return not self.decision.is_to_train
        is_same = is_first_process() and check_configuration(self.config, self.folder)
        return is_same and job_state(self.folder, None).is_finished

    def train_in_turn(self, train: Callable[..., Any]) -> bool:
        """Train the job, after an equal one that another process trains. Returns False if it is finished."""
        config = OmegaConf.merge(self.config, {"resume": "auto"})
        while True:
            while self.is_taken:
                if worker_stops() or (self.in_slurm and self.decision is None and early):
                    raise KeyboardInterrupt(signal.SIGTERM.name)
                time.sleep(PAUSE)
            if self.is_finished:
                return False
            try:
                with freed_memory(), restored_settings(), leaving_is_a_failure():
                    train(config, self.folder, begin=self.begin, overrides=self.overrides)
                return True
            except FolderInUseError:  # an equal trial took it in between
                if not self.in_study or self.decision is not None:
                    raise

    def begin(self, trainer: "Trainer") -> None:
        """Record that training begins, after the last checks."""
        if trainer.world_size > 1 and not self.in_slurm:
            raise ValueError(refusal("trainer.devices", "1 in a sweep", trainer.world_size, SEVERAL_DEVICES))
        if self.in_study and not keeps_best(trainer):
            raise ValueError("a trial of Optuna must validate and have callbacks.checkpoint, got no value to optimise")
        if trainer.is_global_zero:
            save_settings(self.config, self.folder, overrides=self.overrides)
            self.record(RunStatus.RUNNING)

    def end(self, **results: Any) -> float | None:
        """Record the state of the run. Returns the best value of the monitored metric."""
        from bptt.lightning.checkpoint_files import best_metric

        objective = finite(best_metric(self.folder))
        self.record(RunFolder(self.folder).status, objective=objective, **results)
        return objective

    def repeat_end(self) -> float | None:
        """Record the state of a run that was finished before."""
        objective = self.end()
        if self.decision is None:
            say(f"finished before: {self.name}")
        else:
            remove_unused(self.folder, self.log)
        return objective

    def fail(self, error: Exception) -> None:
        """Record and print an error in one line, and write its traceback to the log."""
        line = one_line(error) if isinstance(error, FAULTS) else f"{type(error).__name__}: {one_line(error)}"
        self.record(RunStatus.FAILED, error=line, wall_seconds=self.seconds, summary=summary_hash(self.folder))
        say(f"failed: {self.name}: {line}", error=True)
        with suppress(FileNotFoundError), self.log.open("a", encoding="utf-8") as file:  # an equal trial removed it
            traceback.print_exc(file=file)
        remove_unused(self.folder, self.log)

    def interrupt(self) -> None:
        """Record that the job was stopped, if it had begun."""
        if RunFolder(self.folder).settings.exists():
            self.record(RunStatus.INTERRUPTED, wall_seconds=self.seconds)
        else:
            self.release_others()
        remove_unused(self.folder, self.log)


def keeps_best(trainer: "Trainer") -> bool:
    """True if a run validates and keeps its best checkpoint."""
    from bptt.lightning.callbacks.checkpoint import Checkpoint

    kept = any(isinstance(each, Checkpoint) for each in trainer.callbacks)  # type: ignore[attr-defined]  # no annotation
    return kept and trainer.limit_val_batches != 0


def remove_unused(folder: Path, log: Path) -> None:
    """Remove the folder of a job that never started, unless another process uses it."""
    with suppress(ValueError, FileNotFoundError), RunFolder(folder).locked():
        if set(folder.iterdir()) <= {log}:
            shutil.rmtree(folder)
    if not folder.exists():  # another process of this job may have removed it
        for handler in list(logging.root.handlers):  # Slurm's launcher still logs, into the folder
            if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder:
                logging.root.removeHandler(handler)
