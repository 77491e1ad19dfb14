"""A sweep of 8 jobs: one after another, in two local processes, and as 8 separately started Python processes.

Each job computes on one thread, so that the ratio only measures the effect of processes. And what a sweep adds to its
jobs: seconds to the first update of many jobs; and what each further job takes beside its training, for jobs of one
batch, whose training is validation, files and pictures for the most part. Local processes are kept for the jobs that
follow, so that a further job there, its training included, takes less than the imports of a new process.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bptt.benchmarks.measure import Found, interleaved, row
from bptt.benchmarks.startup import FIRST_UPDATE, IMPORTS, TRAIN, check_ended
from bptt.benchmarks.startup import seconds as seconds_of_python
from bptt.run_folder import RunFolder

JOBS = range(1, 9)
JOB = (
    *("task=copy_memory", "task.train_batches=800", "task.validation_batches=1"),
    *("model.hidden_size=128", "trainer.enable_progress_bar=false", "callbacks.gradient_flow.every_n_updates=1000"),
)
SWEEP = ("-m", f"seed={','.join(map(str, JOBS))}")
LOCAL = ("hydra/launcher=local", "hydra.launcher.n_jobs=2")
MANY = 500
FEW_AND_MORE = (10, 100)
SMALL_JOBS = {count: ("-m", f"seed=range(1,{count + 1})") for count in FEW_AND_MORE}
TINY = (
    *("task=copy_memory", "task.train_batches=1", "task.validation_batches=1", "trainer.max_epochs=1"),
    *("model.hidden_size=8", "trainer.enable_progress_bar=false"),
)


def rows(repetitions: int) -> Found:
    """Each variant is measured once, because it takes some minutes."""
    variants = {
        "serial": partial(seconds, SWEEP),
        "two processes": partial(seconds, (*SWEEP, *LOCAL)),
        "by hand": partial(seconds, *((f"seed={seed}",) for seed in JOBS)),
    }
    timings = interleaved(variants, 1, warm_up=False)
    yield row("sweep: two processes / serial", timings["two processes"], timings["serial"], target=0.55)
    yield row("sweep: two processes / by hand, two at a time", timings["two processes"], timings["by hand"])
    first = seconds(("-m", f"seed=range(1,{MANY + 1})"), job=FIRST_UPDATE)
    yield row(f"sweep: first update of {MANY} jobs / 5 s", [first], [5.0], target=1.0)
    few, more = (overhead(count) for count in FEW_AND_MORE)
    each = (more - few) / (FEW_AND_MORE[1] - FEW_AND_MORE[0])
    yield row("sweep: one more job, beside its training / .3 s", [each], [0.3], target=1.0)
    few, more = (seconds((*SMALL_JOBS[count], *LOCAL), job=TINY) for count in FEW_AND_MORE)
    title = "sweep: one more job in two processes / import torch, lightning, hydra"
    yield row(title, [(more - few) / (FEW_AND_MORE[1] - FEW_AND_MORE[0])], [seconds_of_python(*IMPORTS)], target=1.0)


def overhead(count: int) -> float:
    """Seconds of a sweep of small jobs beyond the training of its jobs, from the start of training to its summary."""
    with tempfile.TemporaryDirectory() as folder:
        all_seconds = seconds(SMALL_JOBS[count], job=TINY, folder=folder)
        summaries = list(Path(folder).rglob(RunFolder(Path()).summary.name))
        assert len(summaries) == count
        return all_seconds - sum(RunFolder(path.parent).read_summary()["wall_seconds"] for path in summaries)


def seconds(*commands: tuple[str, ...], job: Sequence[str] = JOB, folder: str | None = None) -> float:
    """Seconds of one or more calls of train.py, two at a time, with the words of a job, in a new folder or a given."""
    with tempfile.TemporaryDirectory() as new_folder, ThreadPoolExecutor(2) as pool:

        def call(words: tuple[str, ...]) -> None:
            run = () if "-m" in words else (f"hydra.run.dir={words[0].replace('=', '_')}",)
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, TRAIN, *words, *job, *run]  # -m comes first
            check_ended(
                subprocess.run(command, cwd=folder or new_folder, env=environment, capture_output=True, text=True)
            )

        began = time.perf_counter()
        list(pool.map(call, commands))
        return time.perf_counter() - began
