"""Trains a tiny network for very long and looks for growth: python tests/soak.py timesteps=1e8

Prints, for every tenth of the run, the medians of the resident memory, the number of open file handles and the CPU time
an update took (all callbacks, validations and checkpoints in it). Exit code 1 where one of them is larger in the last
fifth of the run than in the second fifth, by more than `LIMITS`. folder=FOLDER keeps the run there.
"""

import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer

from bptt.configuration.build import build_module, build_trainer
from bptt.configuration.compose import compose_config
from bptt.lightning.data import TaskData
from bptt.lightning.module import BPTTModule

LENGTH, SEQUENCES, BATCHES = 500, 200, 50  # of a batch: T, B; of an epoch
WORDS = (
    "task=lag_bits", f"task.length={LENGTH}", f"task.batch_size={SEQUENCES}", f"task.train_batches={BATCHES}",
    "task.validation_batches=1", "model=elman", "model.hidden_size=8", "estimator.chunk_size=25", "callbacks=bias",
    "callbacks.checkpoint.every_n_updates=100", "trainer.enable_progress_bar=false",
)  # fmt: skip
LIMITS = {"memory (MiB)": 1.05, "file handles": 1.0, "CPU time an update (ms)": 1.2}  # the last fifth over the second
PAGE = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """Quantities sampled after every batch, in the order of `LIMITS`."""

    memory: float
    handles: int
    cost: float


class Sampler(Callback):
    """Looks at this process after every batch."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.at, self.updates = time.process_time(), 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        # As the last callback, so that all that belongs to the batch before is over.
        assert isinstance(pl_module, BPTTModule)
        now, updates = time.process_time(), pl_module.counters.updates
        if updates:
            resident = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * PAGE / 2**20
            cost = 1000 * (now - self.at) / (updates - self.updates)
            self.samples.append(Sample(resident, len(os.listdir("/proc/self/fd")), cost))
        self.at, self.updates = now, updates


def soak(folder: Path, *, timesteps: float) -> tuple[int, list[Sample]]:
    """Train in a folder; how many timesteps it really was, and the samples."""
    torch.set_num_threads(1)
    batches = math.ceil(timesteps / (LENGTH * SEQUENCES))
    config = compose_config([*WORDS, f"trainer.max_epochs={math.ceil(batches / BATCHES)}"])
    module, trainer, sampler = build_module(config), build_trainer(config, folder), Sampler()
    trainer.callbacks.append(sampler)  # type: ignore[attr-defined]  # no annotation in Lightning
    trainer.fit(module, datamodule=TaskData(module))
    return module.counters.timesteps, sampler.samples


def part(samples: Sequence[Sample], number: int, parts: int) -> list[float]:
    """The medians over one of so many equal parts of the run."""
    size = len(samples) / parts
    own = samples[round(number * size) : round((number + 1) * size)]
    return [float(median(column)) for column in zip(*own)]


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Quantities that have grown beyond their limit, with the factor."""
    factors = [last / second for last, second in zip(part(samples, 4, 5), part(samples, 1, 5))]
    return {name: factor for (name, limit), factor in zip(LIMITS.items(), factors) if factor > limit}


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.get("folder", temporary)).absolute()
        timesteps, samples = soak(folder, timesteps=float(given.get("timesteps", 1e8)))
    print(f"{timesteps:,} timesteps in {len(samples)} samples\ntenth  {'  '.join(LIMITS)}")
    for tenth in range(10):
        values = part(samples, tenth, 10)
        print(f"{tenth + 1:>5}  {'  '.join(f'{value:>{len(name)}.2f}' for name, value in zip(LIMITS, values))}")
    grown = growth(samples)
    sys.exit("error: " + ", ".join(f"{name} × {factor:.3f}" for name, factor in grown.items()) if grown else 0)


if __name__ == "__main__":
    main()
