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
from bptt.parent_process import PARENT
from bptt.run_folder import RunFolder, RunStatus

FINISHED = (RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.DIVERGED)

Command = Sequence[str]  # name of a script and its command-line arguments


def threads_per_run(jobs: int) -> int:
    """The cores of this machine, divided among the jobs."""
    return max(1, (os.cpu_count() or 1) // jobs)


def run_all(commands: Mapping[Path, Command], *, jobs: int) -> list[Path]:
    """Run commands by folder, `jobs` at a time, with output to FOLDER.out. Returns the folders that did not finish.

    The first of them has begun. On SIGINT, SIGTERM or SIGHUP, the running processes receive SIGTERM and no more are
    started. Afterwards these signals are handled as before.
    """
    waiting, cancelled = dict(commands), list[Path]()
    running: dict[Path, subprocess.Popen[Any]] = {}
    unfinished: list[Path] = []
    received: list[int] = []

    def receive(number: int, _: Any) -> None:  # a process that is being started is not in `running` yet
        received.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {each: signal.getsignal(each) for each in numbers if signal.getsignal(each) != signal.SIG_IGN}  # nohup
    try:
        for number in former:
            signal.signal(number, receive)
        while waiting or running:
            while waiting and len(running) < jobs and not received:
                folder = next(iter(waiting))
                running[folder] = start(waiting.pop(folder), folder, threads=threads_per_run(jobs))
            time.sleep(0.1)
            if received:
                received.clear()
                cancelled += waiting
                waiting.clear()
                for process in running.values():
                    process.terminate()
            for folder in [folder for folder, process in running.items() if process.poll() is not None]:
                result = status_or_exit_code(folder, running.pop(folder).returncode)
                print(f"{folder}: {result}", flush=True)
                unfinished += [] if result in FINISHED else [folder]
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return [*unfinished, *cancelled]


def start(command: Command, folder: Path, *, threads: int) -> subprocess.Popen[Any]:
    """Start a command in a new session: Ctrl-C does not reach it, only the SIGTERM of `run_all`, or when that dies."""
    script, *arguments = command
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.out").open("a", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *arguments],
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), PARENT: str(os.getpid())},
        )  # fmt: skip


def status_or_exit_code(folder: Path, code: int) -> str:
    """Status of a run whose process has ended; its exit code if it failed otherwise than by divergence or a signal."""
    run = RunFolder(folder)
    status = run.status if run.summary.is_file() else RunStatus.COMPLETED  # a benchmark has no summary
    return f"exit code {code}" if code and status not in (RunStatus.DIVERGED, RunStatus.INTERRUPTED) else status
