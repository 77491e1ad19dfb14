"""Run published experiments, and write what came of them beside what was published.

    python scripts/reproduce.py [KEY …] [KEY/ROW …]     all of docs/published, some, or single rows of them

Trains every row with every seed, each as a process of its own in outputs/reproduce/KEY/ROW/seed_S, and writes
RESULTS.md with a figure for each key in docs/results. A run that has finished is not run again, and one that was
interrupted goes on; SIGTERM and Ctrl-C stop all after a checkpoint.

    --quick        a scale of minutes and one seed, in outputs/reproduce_quick with a table of its own
    jobs=1         how many runs at a time; 0 runs nothing and writes the table of what is there
    text=FILE      the text of tinyshakespeare
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bptt.configuration.arguments import run_script, script_arguments
from bptt.configuration.compose import SCRIPTS
from bptt.contracts import at_least, one_of
from bptt.reproduction.page import write
from bptt.reproduction.rows import KEYS, OTHER, Publication, publication, read_runs, run_folder
from bptt.run_folder import RunFolder, RunStatus

FINISHED = (RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.DIVERGED)

Command = Sequence[str]


def waiting_runs(each: Publication, root: Path, *, words: Sequence[str]) -> dict[Path, Command]:
    """By folder, the command of every run that has not finished, the first seed of all rows first."""
    if each.benchmark:
        folder = root / each.key
        command = ["benchmark.py", each.benchmark, f"out={folder}"]
        return {} if (folder / "benchmark.json").is_file() else {folder: command}
    rows = [row for row in each.rows if {each.key, f"{each.key}/{row.name}"} & set(words)]
    if each.text and not any(word.startswith(f"{each.text}=") for row in rows for word in row.words):
        print(f"{each.key}: not run, as it needs a text; say text=FILE")
        return {}
    there = {row.name: read_runs(each, row, root) for row in rows}
    found: dict[Path, Command] = {}
    for turn in zip_longest(*([(row, seed) for seed in row.seeds] for row in rows)):
        for row, seed in filter(None, turn):
            run, folder = there[row.name].get(seed), run_folder(root, each, row, seed)
            if run is not None and run.error == OTHER:
                raise ValueError(f"{folder} must hold a run of its row, got one {OTHER}; move it away")
            if run is None or run.status not in FINISHED:
                own = (f"seed={seed}", "resume=auto", "trainer.enable_progress_bar=false", f"hydra.run.dir={folder}")
                found[folder] = ["train.py", *row.words, *own]
    return found


def run_all(commands: Mapping[Path, Command], *, jobs: int) -> list[Path]:
    """Run commands as processes, `jobs` at a time; what each says goes to FOLDER.out. Returns what did not finish.

    When this process is asked to stop, it asks them to, and begins no more.
    """
    waiting = dict(commands)
    running: dict[Path, subprocess.Popen[Any]] = {}
    left: list[Path] = []

    def stop(number: int, _: Any) -> None:
        left.extend(waiting)
        waiting.clear()
        for process in running.values():
            process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    while waiting or running:
        while waiting and len(running) < jobs:
            folder = next(iter(waiting))
            script, *words = waiting.pop(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with folder.with_name(f"{folder.name}.out").open("a", encoding="utf-8") as file:
                # In a session of its own, where Ctrl-C does not reach it beside our SIGTERM.
                running[folder] = subprocess.Popen(
                    [sys.executable, str(SCRIPTS / script), *words],
                    stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                    env={**os.environ, "OMP_NUM_THREADS": threads},
                )  # fmt: skip
        time.sleep(0.1)
        for folder in [folder for folder, process in running.items() if process.poll() is not None]:
            code = running.pop(folder).returncode
            ended = outcome(folder, code)
            print(f"{folder}: {ended}", flush=True)
            left += [] if ended in FINISHED else [folder]
    return left


def outcome(folder: Path, code: int) -> str:
    """How a process ended: what its summary says, unless it failed otherwise or writes none."""
    run = RunFolder(folder)
    status = run.status if run.summary.is_file() else RunStatus.COMPLETED  # a benchmark has no summary
    return f"exit code {code}" if code and status not in (RunStatus.DIVERGED, RunStatus.INTERRUPTED) else status


def main() -> None:
    arguments, words = script_arguments({"jobs": "1", "text": None})
    quick = "--quick" in words
    words = [word for word in words if word != "--quick"] or KEYS
    text = str(Path(arguments["text"]).resolve()) if arguments["text"] else None
    jobs = int(arguments["jobs"]) if arguments["jobs"].isdecimal() else arguments["jobs"]
    at_least(0, jobs=jobs)
    publications = [publication(key, quick=quick, text=text) for key in KEYS]
    known = [*KEYS, *(f"{each.key}/{row.name}" for each in publications if each.metric for row in each.rows)]
    for word in words:
        one_of(KEYS if "/" not in word else [name for name in known if "/" in name], KEY=word)
    root = Path("outputs", "reproduce_quick" if quick else "reproduce")
    left = []
    if jobs:
        chosen = [each for each in publications if any(word.partition("/")[0] == each.key for word in words)]
        commands = [waiting_runs(each, root, words=words) for each in chosen]
        left = run_all({folder: command for part in commands for folder, command in part.items()}, jobs=jobs)
    page, figures = (root / "RESULTS.md", root) if quick else (Path("RESULTS.md"), Path("docs", "results"))
    write(publications, root, page=page, figures=figures, quick=quick)
    print(page)
    if left:
        raise ValueError(f"all runs must finish, got {len(left)} that did not: {left[0]} …; see {left[0]}.out, go on")


if __name__ == "__main__":
    run_script(main, __doc__)
