"""What a sweep says of its jobs: the best one, and how they ended."""

import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from bptt.lightning.terminal import say
from bptt.run_folder import RunFolder, RunStatus
from bptt.sweeps.manifest import Manifest, job_state, recorded_state
from bptt.sweeps.slurm import SubmittedJobs

NOT_BEGUN = (RunStatus.MISSING, RunStatus.INTERRUPTED)  # a job that ends otherwise has a line about it
GRACE = 3.0  # seconds for killed workers to let go of their runs


class Job(NamedTuple):
    """A job and its state. name: folder relative to the sweep's."""

    name: str
    overrides: Sequence[str]
    state: RunStatus


def print_best(config: DictConfig, jobs: Sequence[Job]) -> None:
    """Print the job with the best monitored metric, and the command that compares all jobs.

    If tasks or experiments are swept, only the command is printed: metrics of different tasks cannot be compared.
    """
    folder = config.hydra.sweep.dir
    metric = OmegaConf.select(config, "callbacks.checkpoint.monitor", default="validation/loss")
    sign = -1 if OmegaConf.select(config, "callbacks.checkpoint.mode") == "max" else 1
    tasks = {word for job in jobs for word in job.overrides if word.startswith(("task=", "experiment="))}
    scores: dict[str, float] = {}
    sweep = Path(folder).absolute()
    for job in states(sweep, jobs) if len(tasks) < 2 else []:
        with suppress(ValueError):  # a job that did not run has no summary
            value = RunFolder(sweep / job.name).read_summary()["metrics"].get(metric)
            if job.state.is_finished and isinstance(value, int | float):
                scores[job.name] = value
    if scores:
        best = min(scores, key=lambda name: sign * scores[name])
        say(f"best     {best}: {metric} {scores[best]:.4g}, in {folder}/{best}")
    say(f"compare  python scripts/compare_runs.py {shlex.quote(folder)}")


def states(sweep: Path, jobs: Sequence[Job]) -> list[Job]:
    """The jobs with their states now. A finished one that was to become longer, and did not begin, is interrupted."""
    manifest = Manifest(sweep)
    records, new = manifest.newest(), manifest.of_this_launch()
    found = []
    for job in jobs:
        state = job_state(sweep / job.name, records.get(job.name))
        is_old = job.state == RunStatus.INTERRUPTED and recorded_state(new.get(job.name)) in NOT_BEGUN
        found.append(job._replace(state=RunStatus.INTERRUPTED if state.is_finished and is_old else state))
    return found


def report(sweep: Path, jobs: Sequence[Job], *, interrupted: bool = False, repeatable: bool = True) -> bool:
    """Print the states of all jobs in one line, with those that are left; True if all are finished.

    interrupted: this launch did not wait for its jobs, so that some may go on in Slurm's queue. repeatable: false if
        the launcher has refused the jobs, as it would again.
    """
    manifest = Manifest(sweep)
    records = manifest.newest()
    in_queue = SubmittedJobs(sweep).in_queue() if interrupted else set()
    deadline = time.monotonic() + GRACE
    while True:
        ended = states(sweep, jobs)
        held = [job for job in ended if job.state == RunStatus.RUNNING and job.name not in in_queue]
        if not (held and interrupted) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    waiting = [job.name for job in ended if job.name in in_queue and not job.state.is_finished]
    ended = [job._replace(state=RunStatus.RUNNING) if job.name in waiting else job for job in ended]
    for job in ended:  # a killed process could not record the end of its job
        record = records.get(job.name)
        if record is not None and recorded_state(record) == RunStatus.RUNNING != job.state:
            manifest.add(**{**record, "state": job.state})
    finished = all(job.state.is_finished for job in ended)
    line = f"{counted(ended)}{''.join(details(ended, records, repeatable=repeatable))}"
    line += f"; {len(waiting)} still in Slurm's queue" if waiting else ""
    say(line if finished else f"error: {line}", error=not finished)
    return finished


def details(jobs: Sequence[Job], records: dict[str, dict[str, object]], *, repeatable: bool = True) -> Iterator[str]:
    """The first failed job with its error, else the jobs that did not run, or still run."""
    failed = [job for job in jobs if job.state.is_failure]
    for job in failed[:1]:
        yield f": {job.name}: {records.get(job.name, {}).get('error')}"
    left = [job for job in jobs if not (job.state.is_finished or job.state.is_failure)]
    if left and not failed:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        yield f": {', '.join(job.name for job in left[:3])}{more}"
        if repeatable and any(job.state != RunStatus.RUNNING for job in left):
            yield "; the same command runs what is left"


def counted(jobs: Sequence[Job]) -> str:
    """The number of jobs in each state: "11 completed, 1 failed"."""
    return ", ".join(f"{count} {state}" for state, count in sorted(Counter(job.state for job in jobs).items()))
