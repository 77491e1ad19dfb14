"""Seconds from the command to the first update, against importing the libraries; and seconds to --help."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Any

from lightning import Callback, LightningModule, Trainer

from bptt.benchmarks.measure import Found, interleaved, row
from bptt.configuration.compose import SCRIPTS
from bptt.contracts import refusal

TRAIN = str(SCRIPTS / "train.py")
IMPORTS = ("-c", "import torch, lightning, hydra")
FIRST_UPDATE = (
    *("task=copy_memory", "task.delay=10", "task.batch_size=4", "trainer.enable_progress_bar=false"),
    "+callbacks.first_update._target_=bptt.benchmarks.startup.FirstUpdate",
)


class FirstUpdate(Callback):
    """Callback that ends the process after the first batch, which is one update here."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        os._exit(0)


def rows(repetitions: int) -> Found:
    variants = {
        "first update": partial(seconds, TRAIN, *FIRST_UPDATE),
        "imports": partial(seconds, *IMPORTS),
        "help": partial(seconds, TRAIN, "--help"),
    }
    timings = interleaved(variants, repetitions)
    title = "startup: first update / import torch, lightning, hydra"
    yield row(title, timings["first update"], timings["imports"], target=1.3)
    yield row("startup: --help / 1 s", timings["help"], [1.0] * repetitions, target=1.5)


def seconds(*words: str) -> float:
    """Seconds of a Python process from start to end, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
        took = time.perf_counter() - began
    check_ended(done)
    return took


def check_ended(done: subprocess.CompletedProcess[str]) -> None:
    """ValueError with the last line of stderr, if a process failed: the disk may be full."""
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise ValueError(refusal(f"the exit code of {shlex.join(done.args)}", "0", done.returncode, last))
