"""Running of one job of a sweep, in whichever process the launcher runs it."""

import signal
from collections.abc import Callable
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bptt.lightning.stop_signals import keep_for_training, late
from bptt.parent_process import stop_if_orphaned, stop_with_parent
from bptt.sweeps.local_workers import runs_in_workers, stop_worker
from bptt.sweeps.running_job import RunningJob


def run_job(config: DictConfig, train: Callable[..., Any]) -> float | None:
    """Train one job of a sweep unless it is finished; resume it if it was interrupted or had failed.

    The manifest gets a line at the start and one at the end. The log of a failed job holds its traceback. A job that is
    refused leaves no folder. Returns the best value of the monitored metric; None if it is not finite, because Optuna
    counts None as a failed trial, but ends its study at NaN.
    """
    hydra = HydraConfig.get()
    if runs_in_workers(hydra.launcher):
        stop_with_parent()
    job = RunningJob(config, hydra)
    if job.in_slurm:
        keep_for_training(signal.SIGTERM)
    if job.is_skipped:
        job.skip()
        return None
    try:
        job.identify(hydra)
        if not job.train_in_turn(train):
            return job.repeat_end()
    except Exception as error:
        job.fail(error)
        raise
    except BaseException:
        job.interrupt()
        stop_if_orphaned()  # otherwise a worker of joblib would wait for minutes for another job
        if stop_worker():  # an exception would make joblib kill the other workers
            return None
        raise
    objective = job.end(wall_seconds=job.seconds)
    stopped = late.pop(0) if late else None
    late.clear()
    if stopped is not None and not job.in_slurm:  # there this process has no other job
        stop_if_orphaned()
        if not stop_worker():
            raise KeyboardInterrupt(stopped.name)
    return objective
