"""One job of a sweep, in whichever process the launcher runs it."""

import logging
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bptt.configuration.build import is_first_process
from bptt.configuration.errors import FAULTS, one_line
from bptt.configuration.paths import with_absolute_paths
from bptt.contracts import refusal
from bptt.folder_lock import FolderInUseError
from bptt.lightning.stop_signals import late, leaving_is_a_failure
from bptt.lightning.terminal import say
from bptt.parent_process import stop_if_orphaned, stop_with_parent
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.hydra_files import save_settings
from bptt.runs.reading import finite
from bptt.runs.resumption import check_configuration
from bptt.sweeps.first_process import attempt_of_job, decision_of_another
from bptt.sweeps.local_workers import runs_in_workers, stop_worker, worker_stops
from bptt.sweeps.manifest import Manifest, files_digest, identity, job_state, recorded_state, summary_hash
from bptt.sweeps.names import as_written
from bptt.sweeps.restored_process import freed_memory, restored_settings

if TYPE_CHECKING:
    from lightning import Trainer

PAUSE = 0.5  # seconds until a trial asks again whether an equal one has ended
SEVERAL_DEVICES = "use hydra/launcher=slurm, which gives every job its own processes, or torchrun for one run at a time"


def run_job(config: DictConfig, train: Callable[..., Any]) -> float | None:
    """Train one job of a sweep unless it is finished; resume it if it was interrupted or had failed.

    The manifest gets a line at the start and one at the end. The log of a failed job holds its traceback. A job that is
    refused leaves no folder. Returns the best value of the monitored metric; None if it is not finite, because Optuna
    counts None as a failed trial, but ends its study at NaN.
    """
    from bptt.lightning.checkpoint_files import best_metric

    hydra = HydraConfig.get()
    if runs_in_workers(hydra.launcher):
        stop_with_parent()
    # Absolute, because hydra.job.chdir=true has changed the working directory.
    folder, sweep = Path(hydra.runtime.output_dir).absolute(), Path(hydra.runtime.cwd, hydra.sweep.dir)
    config = with_absolute_paths(config, Path(hydra.runtime.cwd))
    manifest = Manifest(sweep)
    name = os.path.relpath(folder, sweep)
    log = folder / f"{hydra.job.name}.log"
    overrides = as_written(hydra.overrides.task)
    in_study = hydra.sweeper._target_.endswith("OptunaSweeper")  # which may draw equal trials at the same time
    identifying: dict[str, Any] = {"overrides": overrides}
    several = "slurm" in hydra.launcher._target_.lower()  # its jobs may have several processes
    if several and (attempt := attempt_of_job()):
        identifying["attempt"] = attempt
    others_decision = decision_of_another(manifest, name) if several else None
    started = time.monotonic()

    def record(state: RunStatus, **results: Any) -> None:
        if is_first_process():
            manifest.add(name, **identifying, state=state, **results)

    def seconds() -> float:
        return round(time.monotonic() - started, 3)

    def is_taken() -> bool:
        return in_study and RunFolder(folder).is_locked if others_decision is None else not others_decision.is_made

    def is_finished() -> bool:
        if others_decision is not None:
            return not others_decision.is_to_train
        return is_first_process() and check_configuration(config, folder) and job_state(folder, None).is_finished

    def begin(trainer: "Trainer") -> None:
        if trainer.world_size > 1 and not several:
            raise ValueError(refusal("trainer.devices", "1 in a sweep", trainer.world_size, SEVERAL_DEVICES))
        if in_study and not keeps_best(trainer):
            raise ValueError("a trial of Optuna must validate and have callbacks.checkpoint, got no value to optimise")
        if trainer.is_global_zero:
            save_settings(config, folder, overrides=overrides)
            record(RunStatus.RUNNING)

    fails_fast = config.sweep.fail_fast and others_decision is None
    if worker_stops() or (fails_fast and manifest.failed_in_this_launch()):
        if "attempt" in identifying:  # other processes wait for a line; an earlier failure stays the newest state
            earlier = manifest.newest().get(name, {})
            has_failed = recorded_state(earlier).is_failure
            kept = {key: earlier[key] for key in ("error", "summary") if has_failed and key in earlier}
            record(recorded_state(earlier) if has_failed else RunStatus.MISSING, **kept)
        remove_unused(folder, log)
        return None
    try:
        identifying["identity"] = identity(overrides, files=files_digest(hydra))
        if not train_in_turn(
            partial(train, OmegaConf.merge(config, {"resume": "auto"}), folder, begin=begin, overrides=overrides),
            is_finished,
            is_taken,
            has_equals=in_study and others_decision is None,
        ):
            objective = finite(best_metric(folder))
            record(RunFolder(folder).status, objective=objective)
            if others_decision is None:
                say(f"finished before: {name}")
            else:
                remove_unused(folder, log)
            return objective
    except Exception as error:
        line = one_line(error) if isinstance(error, FAULTS) else f"{type(error).__name__}: {one_line(error)}"
        record(RunStatus.FAILED, error=line, wall_seconds=seconds(), summary=summary_hash(folder))
        say(f"failed: {name}: {line}", error=True)
        with suppress(FileNotFoundError), log.open("a", encoding="utf-8") as file:  # an equal trial may have removed it
            traceback.print_exc(file=file)
        remove_unused(folder, log)
        raise
    except BaseException:
        if RunFolder(folder).settings.exists() or "attempt" in identifying:
            record(RunStatus.INTERRUPTED, wall_seconds=seconds())
        remove_unused(folder, log)
        stop_if_orphaned()  # otherwise a worker of joblib would wait for minutes for another job
        if stop_worker():  # an exception would make joblib kill the other workers
            return None
        raise
    objective = finite(best_metric(folder))
    record(RunFolder(folder).status, wall_seconds=seconds(), objective=objective)
    stopped = late.pop(0) if late else None
    late.clear()
    if stopped is not None and not several:  # there this process has no other job
        stop_if_orphaned()
        if not stop_worker():
            raise KeyboardInterrupt(stopped.name)
    return objective


def train_in_turn(
    train: Callable[[], Any], is_finished: Callable[[], bool], is_taken: Callable[[], bool], *, has_equals: bool
) -> bool:
    """Train a job unless it is finished. Returns False if it is.

    is_taken: true as long as another process trains an equal job, or has to decide first; this is waited for.
    has_equals: another process may take the folder in between.
    """
    while True:
        while is_taken():
            if worker_stops():
                raise KeyboardInterrupt(signal.SIGTERM.name)
            time.sleep(PAUSE)
        if is_finished():
            return False
        try:
            with freed_memory(), restored_settings(), leaving_is_a_failure():
                train()
            return True
        except FolderInUseError:
            if not has_equals:
                raise


def keeps_best(trainer: "Trainer") -> bool:
    """True if a run validates and keeps its best checkpoint."""
    from bptt.lightning.callbacks.checkpoint import Checkpoint

    kept = any(isinstance(each, Checkpoint) for each in trainer.callbacks)  # type: ignore[attr-defined]  # no annotation
    return kept and trainer.limit_val_batches != 0


def remove_unused(folder: Path, log: Path) -> None:
    """Remove the folder of a job that never started, unless another process uses it."""
    with suppress(ValueError, FileNotFoundError), RunFolder(folder).locked():
        if set(folder.iterdir()) <= {log}:
            for handler in logging.root.handlers:  # Slurm's launcher still logs, into the folder
                if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder:
                    logging.root.removeHandler(handler)
            shutil.rmtree(folder)
