"""Memory does not grow with the sequence, but for the data."""

import json
import subprocess
import sys

import pytest

# In a process of its own: the peak of a process never comes down again.
MEASURE = """
import json, resource, sys
from functools import partial

import torch
from lightning import Trainer

from bptt.estimators import Adaptive, Chunked, Randomized, Sliding
from bptt.layers import Elman
from bptt.lightning.data import TaskData
from bptt.lightning.module import BPTTModule
from bptt.model import SequenceModel
from bptt.tasks.adding import Adding

torch.set_num_threads(1)
ESTIMATORS = {
    "chunked": lambda: Chunked(1000),
    "sliding": lambda: Sliding(500, 1000),
    "randomized": lambda: Randomized(1000, block=500),
    "adaptive": lambda: Adaptive(0.5, lags=1000, num_samples=2, min_chunk_size=500, max_chunk_size=1000),
}


class LossEverywhere(Adding):
    def draw(self, generator):
        batch = super().draw(generator)
        batch.mask[:] = True
        return batch


def train(length, estimator):
    task = {"last": Adding, "every": LossEverywhere}[sys.argv[2]](
        length=length, batch_size=1, seed=1, train_batches=1, validation_batches=1, test_batches=1
    )
    model = SequenceModel(Elman, input_size=2, output_size=1, hidden_size=4)
    optimizer = partial(torch.optim.SGD, lr=0.01)
    module = BPTTModule(task=task, model=model, estimator=ESTIMATORS[estimator](), optimizer=optimizer)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module, datamodule=TaskData(module))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak": peak, "updates": module.counters.updates, "timesteps": module.counters.timesteps}


print(json.dumps([[train(length, name) for name in ESTIMATORS] for length in (10_000, int(sys.argv[1]))]))
"""


@pytest.mark.parametrize(("length", "loss"), [(250_000, "last"), (50_000, "every")])
def test_peak_grows_by_no_more_than_the_data(length: int, loss: str) -> None:
    """Increase in MiB over runs of 10,000 timesteps. Data of 250,000 take 6; graphs of 50,000 would take 100."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(length), loss]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    short, long = json.loads(done.stdout.splitlines()[-1])
    assert all(run["timesteps"] == length for run in long)
    assert all(run["updates"] >= (1 if loss == "last" else 40) for run in long)
    assert long[-1]["peak"] - short[-1]["peak"] < 40, [run["peak"] for run in (*short, *long)]
