"""Run scripts as processes, several at a time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bptt.configuration.compose import SCRIPTS
from bptt.run_folder import RunFolder, RunStatus

FINISHED = (RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.DIVERGED)

Command = Sequence[str]  # name of a script and its command-line arguments


def threads_per_run(jobs: int) -> int:
    """The cores of this machine, divided among the jobs."""
    return max(1, (os.cpu_count() or 1) // jobs)


def run_all(commands: Mapping[Path, Command], *, jobs: int) -> list[Path]:
    """Run commands by folder, `jobs` at a time, with output to FOLDER.out. Returns the folders that did not finish.

    On SIGINT, SIGTERM or SIGHUP, the running processes receive SIGTERM and no more are started.
    """
    waiting = dict(commands)
    running: dict[Path, subprocess.Popen[Any]] = {}
    unfinished: list[Path] = []

    def stop(number: int, _: Any) -> None:
        unfinished.extend(waiting)
        waiting.clear()
        for process in running.values():
            process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)
    while waiting or running:
        while waiting and len(running) < jobs:
            folder = next(iter(waiting))
            running[folder] = start(waiting.pop(folder), folder, threads=threads_per_run(jobs))
        time.sleep(0.1)
        for folder in [folder for folder, process in running.items() if process.poll() is not None]:
            result = outcome(folder, running.pop(folder).returncode)
            print(f"{folder}: {result}", flush=True)
            unfinished += [] if result in FINISHED else [folder]
    return unfinished


def start(command: Command, folder: Path, *, threads: int) -> subprocess.Popen[Any]:
    """Start a command in a new session: Ctrl-C does not reach it, only the SIGTERM of `run_all`."""
    script, *arguments = command
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.out").open("a", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *arguments],
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip


def outcome(folder: Path, code: int) -> str:
    """Outcome of a process: the status in its run's summary, or its exit code if it failed without writing one."""
    run = RunFolder(folder)
    status = run.status if run.summary.is_file() else RunStatus.COMPLETED  # a benchmark has no summary
    return f"exit code {code}" if code and status not in (RunStatus.DIVERGED, RunStatus.INTERRUPTED) else status
