"""Faults of the surroundings: a full disk, a changed text, another run in the folder, a killed process.

Each ends in one line and exit code 1. Nothing written before is lost: the run can be resumed from its last
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
from support.script_runner import SCRIPTS, ScriptProcess, in_a_process, is_alive, refusal

from bptt.lightning.checkpoint_files import read

LIGHT = ("~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "~callbacks.parameter_norms")
WORDS = (
    "task=text", "task.path=text.txt", "task.fractions=[0.9,0.1,0]", "task.length=20", "task.batch_size=4", "model=gru",
    "model.hidden_size=6", "estimator.chunk_size=10", "callbacks.checkpoint.every_n_updates=4", "resume=auto",
    "hydra.run.dir=run", *LIGHT,
)  # fmt: skip
FOREVER = "trainer.max_epochs=100000"


Begin = Callable[..., ScriptProcess]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a text; runs are in its `run`."""
    (tmp_path / "text.txt").write_text("".join(chr(97 + index * index % 11) for index in range(2000)))
    return tmp_path


@pytest.fixture
def begin(place: Path) -> Iterator[Begin]:
    """Starts train.py in the place; what still runs at the end is ended."""
    begun = []

    def start(*words: str, **environment: str) -> ScriptProcess:
        begun.append(ScriptProcess("train.py", *WORDS, *words, cwd=place, GLOO_SOCKET_IFNAME="lo", **environment))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def trained(place: Path, process: ScriptProcess) -> int:
    """Wait for the second checkpoint of a run; the number of updates of the first, as the newest one is replaced."""
    while not (place / "run" / "checkpoints" / "previous.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return updates(place, "previous")


def updates(place: Path, name: str = "last") -> int:
    found: int = read(place / "run" / "checkpoints" / f"{name}.ckpt")["bptt"]["counters"]["updates"]
    return found


def output_of(process: ScriptProcess) -> str:
    """The one line of a process that ends with exit code 1."""
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert stderr.startswith("error: "), stderr
    assert len(stderr.splitlines()) == 1, stderr
    return stderr


def goes_on(place: Path, *words: str) -> None:
    """Resume the run until the end of the epoch after that of the last checkpoint."""
    content = read(place / "run" / "checkpoints" / "last.ckpt")["bptt"]
    done = in_a_process("train.py", *WORDS, f"trainer.max_epochs={content['place']['epoch'] + 1}", *words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert updates(place) > content["counters"]["updates"]
    assert json.loads((place / "run" / "summary.json").read_text())["status"] == "completed"


@pytest.mark.parametrize(("room", "words"), [(0.5, ()), (2, ("trainer.log_every_n_steps=1",))])
def test_full_disk(place: Path, begin: Begin, room: float, words: tuple[str, ...]) -> None:
    """Room for half a checkpoint in every file, and room for every checkpoint but not for the growing event file."""
    process = begin(FOREVER, *words)
    before = trained(place, process)
    limit = round(room * (place / "run" / "checkpoints" / "previous.ckpt").stat().st_size)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    assert "File too large" in output_of(process)
    assert json.loads((place / "run" / "summary.json").read_text())["status"] == "failed"
    assert updates(place) >= before
    goes_on(place, *words)


def test_a_text_that_changes_and_a_folder_in_use(place: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    text = place / "text.txt"
    before = text.read_text()
    process = begin(FOREVER)
    trained(place, process)
    assert "no other run is using, got run" in refusal(monkeypatch, "train.py", *WORDS, FOREVER)
    text.write_text(before.upper() + "and more")
    assert f"task.path must be a text that does not change, got {str(text)!r}; it has changed" in output_of(process)
    text.write_text(before)
    goes_on(place)


def test_a_text_that_vanishes(place: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run keeps what it has begun with."""
    process = begin("trainer.max_epochs=3")
    trained(place, process)
    (place / "text.txt").unlink()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert json.loads((place / "run" / "summary.json").read_text())["status"] == "completed"
    monkeypatch.chdir(place)
    line = refusal(monkeypatch, "train.py", *WORDS, FOREVER)
    assert line.endswith("if it was moved, say train.py resume=run task.path=NEW")


def test_a_folder_that_cannot_be_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    line = refusal(monkeypatch, "train.py", *WORDS, "hydra.run.dir=/proc/no/run")
    assert line.startswith("error: ")
    assert "/proc/no" in line


@pytest.mark.parametrize("launcher", ["torchrun", "Lightning"])
def test_a_lost_process(place: Path, begin: Begin, launcher: str) -> None:
    """One of two processes of a run is killed. The other one ends, and both resume from the checkpoint."""
    words = ("trainer.devices=2", "trainer.strategy=ddp")
    if launcher == "torchrun":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "GROUP_RANK": "0",
                  "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1", "TORCHELASTIC_MAX_RESTARTS": "0"}  # fmt: skip
        first, second = (begin(FOREVER, *words, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1"))
        before = trained(place, first)
        second.kill()
    else:
        first = begin(FOREVER, *words)
        before = trained(place, first)
        (child,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text(encoding="utf-8").split()
        os.kill(int(child), signal.SIGKILL)
    assert "all processes of a run must stay until its end, but one of them is gone" in output_of(first)
    assert updates(place) >= before
    if launcher == "Lightning":
        goes_on(place, *words)


def test_a_process_is_lost_before_training(place: Path, begin: Begin) -> None:
    """Lightning ends the first one by SIGKILL then, but says why."""
    first = begin(FOREVER, "trainer.devices=2", "trainer.strategy=ddp")
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
    while not (found := children.read_text(encoding="utf-8")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    os.kill(int(found), signal.SIGKILL)
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == -signal.SIGKILL
    assert f"Child process with PID {int(found)} terminated with code -9" in stderr


def test_a_signal_to_two_processes_is_the_exit_code(place: Path) -> None:
    """On a busy machine Lightning saw that its children had ended before the first process had, and killed that."""
    busy = (
        "import runpy, sys, time\n"
        "from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver as Observer\n"
        "from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher as Launcher\n"
        "Observer.__init__.__defaults__ = (0.01,)\n"
        "kill = Launcher.kill\n"
        "Launcher.kill = lambda self, number: (kill(self, number), time.sleep(1))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = (*WORDS, FOREVER, "trainer.devices=2", "trainer.strategy=ddp")
    command = [sys.executable, "-c", busy, str(SCRIPTS / "train.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not (place / "run" / "checkpoints" / "previous.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert "interrupted by SIGTERM: saved after" in stderr
    assert "Child process" not in stderr


def test_the_first_process_is_killed(place: Path, begin: Begin) -> None:
    """The other one ends, too: soon after it has started, and in the middle of training."""
    words = (FOREVER, "trainer.devices=2", "trainer.strategy=ddp")
    for ready in ((lambda: True), (place / "run" / "checkpoints" / "previous.ckpt").exists):
        first = begin(*words)
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
        while not ((found := children.read_text(encoding="utf-8")) and ready()):
            assert first.poll() is None, first.communicate()[1]
            time.sleep(0.01)
        first.kill()
        first.communicate()
        deadline = time.monotonic() + 120
        while is_alive(int(found)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
