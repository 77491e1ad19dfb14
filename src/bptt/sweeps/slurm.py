"""Jobs of sweeps in Slurm's queue."""

import getpass
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from bptt.atomic_files import replace_text

LONGEST_PAUSE = 30.0  # seconds between two questions to Slurm's controller
GRACE = 5.0  # seconds for the result of a job that has left the queue to appear on a network file system


class SubmittedJobs(NamedTuple):
    """Slurm's numbers of a sweep's jobs, in `slurm_jobs.json`: another launch asks for them before it submits."""

    sweep: Path

    @property
    def path(self) -> Path:
        return self.sweep / "slurm_jobs.json"

    def numbers(self) -> dict[str, str]:
        """The newest number of every job, by the job's name."""
        with suppress(OSError, ValueError):
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return {str(name): str(number) for name, number in found.items()}
        return {}

    def add(self, numbers: Mapping[str, str]) -> None:
        replace_text(self.path, json.dumps({**self.numbers(), **numbers}, indent=2) + "\n")

    def in_queue(self) -> set[str]:
        """Names of the jobs that wait or run; those submitted, if Slurm's controller does not answer."""
        numbers = self.numbers()
        queue = queued() if numbers else set()
        return {name for name, number in numbers.items() if queue is None or number in queue}


def queued() -> set[str] | None:
    """The numbers of this user's jobs that wait, run or end: 12, or 12_3 in an array. None if squeue fails.

    Empty on a machine without Slurm. Accounting, which sacct needs, is optional in Slurm; squeue is not.
    """
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return set()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(done.stdout.split()) if done.returncode == 0 else None


def ended(jobs: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The name of each job of submitit when it has ended, and whether it has left a result.

    A job without a result that is not in the queue any more was cancelled, or its node is gone.
    """
    left, missing = dict(jobs), dict[str, float]()
    began = asked = time.monotonic()
    while left:
        now = time.monotonic()
        if now - asked >= min(LONGEST_PAUSE, 1 + (now - began) / 10):
            asked, queue = now, queued()
            if queue is not None:
                gone = {name for name, job in left.items() if job.job_id not in queue}
                missing = {name: missing.get(name, now) for name in gone}
        for name, job in list(left.items()):
            has_result = all(job.task(number).paths.result_pickle.exists() for number in range(job.num_tasks))
            if has_result or (name in missing and now - missing[name] > GRACE):
                del left[name]
                yield name, has_result
        if left:
            time.sleep(0.5)
