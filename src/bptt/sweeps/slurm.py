"""Jobs of sweeps in Slurm's queue: their numbers, and when they end."""

import getpass
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from bptt.atomic_files import replace_text
from bptt.contracts import refusal
from bptt.lightning.terminal import say

LONGEST_PAUSE = 30.0  # seconds between two calls of squeue
TOO_MANY = "Invalid job array specification"  # of sbatch: more jobs than Slurm's MaxArraySize
GRACE = 5.0  # seconds for the result of a job that has left the queue to appear on a network file system


class SubmittedJobs(NamedTuple):
    """Slurm's numbers of a sweep's jobs, in `slurm_jobs.json`. A later launch reads them, to submit no job twice."""

    sweep: Path

    @property
    def path(self) -> Path:
        return self.sweep / "slurm_jobs.json"

    def numbers(self) -> dict[str, str]:
        """The newest number of every job, by the job's name."""
        with suppress(OSError, ValueError, RecursionError):
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                return {str(name): str(number) for name, number in content.items()}
        return {}

    def add(self, numbers: Mapping[str, str]) -> None:
        replace_text(self.path, json.dumps({**self.numbers(), **numbers}, indent=2) + "\n")

    def in_queue(self) -> set[str]:
        """Names of the jobs that wait or run; all submitted ones if squeue fails."""
        numbers = self.numbers()
        queue = queued() if numbers else {}
        return {name for name, number in numbers.items() if queue is None or number in queue}

    def check_all_recorded(self, scripts: Path) -> None:
        """ValueError if jobs whose scripts are in the folder `scripts` are in the queue, but not in this record.

        A launch that was killed between sbatch and its record has left them. It is not known which jobs of the sweep
        they are, so another launch could submit these twice.
        """
        known, queue = set(self.numbers().values()), squeue("%o") or {}
        unknown = [number for number, script in queue.items() if Path(script).parent == scripts and number not in known]
        if unknown:
            remedy = f"wait until they end, or say scancel {' '.join(unknown)}"
            raise ValueError(refusal(f"jobs in Slurm's queue from {scripts}", f"in {self.path.name}", unknown, remedy))


def queued() -> dict[str, str] | None:
    """State and reason of this user's jobs that wait, run or end, by number; otherwise as `squeue`."""
    rows = squeue("%T %r")
    return rows and {number: row.lower().removesuffix(" none") for number, row in rows.items()}


def squeue(fields: str) -> dict[str, str] | None:
    """What squeue prints of this user's jobs that wait, run or end, by number: 12, or 12_3 in an array.

    fields: its placeholders. None if squeue fails; empty on a machine without Slurm. (sacct needs accounting, which is
    optional in Slurm.)
    """
    command = ["squeue", "--noheader", "--array", f"--format=%i {fields}", f"--user={getpass.getuser()}"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return {}
    except (OSError, subprocess.TimeoutExpired):
        return None
    if process.returncode:
        return None
    rows = (line.split(maxsplit=1) for line in process.stdout.splitlines() if line.strip())
    return {row[0]: " ".join(row[1:]).strip() for row in rows}


def with_remedy(reason: str) -> str:
    """The reason why sbatch took no jobs, with what helps if there are more of them than an array may have."""
    remedy = "say hydra.sweeper.max_batch_size=N, N being at most the MaxArraySize that scontrol show config prints"
    return f"{reason}; {remedy}" if TOO_MANY in reason else reason


def ended(jobs: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the name of each of submitit's jobs when it has ended, and whether it has a result.

    A job that is no longer in the queue and has no result was cancelled, or its node has failed. Prints a line to
    stderr when jobs wait for another reason than before: Slurm keeps a job that no node can run for ever.
    """
    left, missing = dict(jobs), dict[str, float]()  # missing: when a job was first missing from the queue
    started = last_call = time.monotonic()
    said: set[str] = set()
    while left:
        now = time.monotonic()
        if now - last_call >= min(LONGEST_PAUSE, 1 + (now - started) / 10):
            last_call, queue = now, queued()
            if queue is not None:
                gone = {name for name, job in left.items() if job.job_id not in queue}
                missing = {name: missing.get(name, now) for name in gone}
                waiting = {queue[job.job_id] for name, job in left.items() if name not in gone} - {"running"}
                if not waiting <= said:
                    say(f"Slurm: {len(left)} left, {', '.join(sorted(waiting))}", error=True)
                said |= waiting
        for name, job in list(left.items()):
            has_result = all(job.task(number).paths.result_pickle.exists() for number in range(job.num_tasks))
            if has_result or (name in missing and now - missing[name] > GRACE):
                del left[name]
                yield name, has_result
        if left:
            time.sleep(0.5)
