"""What a machine does to a run: the disk fills, the text changes, another run wants the folder, a process is killed.

Each ends in one line and exit code 1, and nothing that was written before is lost: the run goes on from its last
checkpoint.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import SCRIPTS, in_a_process, refusal

from bptt.lightning.checkpoint import read

LIGHT = ("~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "~callbacks.parameter_norms")
WORDS = (
    "task=text", "task.path=text.txt", "task.fractions=[0.9,0.1,0]", "task.length=20", "task.batch_size=4", "model=gru",
    "model.hidden_size=6", "estimator.chunk_size=10", "callbacks.checkpoint.every_n_updates=4", "resume=auto",
    "hydra.run.dir=run", *LIGHT,
)  # fmt: skip
FOREVER = "trainer.max_epochs=100000"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a text; runs are in its `run`."""
    (tmp_path / "text.txt").write_text("".join(chr(97 + index * index % 11) for index in range(2000)))
    return tmp_path


@pytest.fixture
def begin(place: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts train.py in the place; what still runs at the end is ended."""
    begun = []

    def start(*words: str, **environment: str) -> subprocess.Popen[str]:
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        command = [sys.executable, str(SCRIPTS / "train.py"), *WORDS, *words]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command, cwd=place, env=variables, **pipes))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def trained(place: Path, process: subprocess.Popen[str]) -> int:
    """Wait for the second checkpoint of a run; its number of updates."""
    while not (place / "run" / "checkpoints" / "previous.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return updates(place)


def updates(place: Path) -> int:
    found: int = read(place / "run" / "checkpoints" / "last.ckpt")["bptt"]["counters"]["updates"]
    return found


def said(process: subprocess.Popen[str]) -> str:
    """The one line of a process that ends with exit code 1."""
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert stderr.startswith("error: "), stderr
    assert len(stderr.splitlines()) == 1, stderr
    return stderr


def goes_on(place: Path, *words: str) -> None:
    """To the end of the epoch after the one that the last checkpoint is in."""
    content = read(place / "run" / "checkpoints" / "last.ckpt")["bptt"]
    done = in_a_process("train.py", *WORDS, f"trainer.max_epochs={content['place']['epoch'] + 1}", *words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert updates(place) > content["counters"]["updates"]
    assert json.loads((place / "run" / "summary.json").read_text())["status"] == "completed"


def test_full_disk(place: Path, begin: Callable[..., subprocess.Popen[str]]) -> None:
    """No file of the process may grow beyond 4096 bytes from some moment on."""
    process = begin(FOREVER)
    before = trained(place, process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    assert "File too large" in said(process)
    assert json.loads((place / "run" / "summary.json").read_text())["status"] == "failed"
    assert updates(place) >= before
    goes_on(place)
