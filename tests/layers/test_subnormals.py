"""Subnormal numbers are flushed to 0 only inside the adjoint, on every thread."""

import subprocess
import sys

import pytest

FIRST_WORK = """
import torch
from bptt.layers.full_precision import without_subnormals
torch.set_num_threads(int({threads!r}))
with without_subnormals():
    torch.ones(1_000_000).mul_(2)  # starts the workers, if nothing has before
print(int((torch.full((1_000_000,), 1e-40).mul(1) == 0).sum()))
"""


@pytest.mark.parametrize("threads", ["2", "4"])
def test_worker_threads_do_not_keep_the_mode(threads: str) -> None:
    """Run in a new process, because its worker threads do not exist before."""
    command = [sys.executable, "-c", FIRST_WORK.format(threads=threads)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "0"
