"""A finished run, or job of a sweep, that is made longer and stops before it trains has not finished."""

from pathlib import Path

import pytest
from support.script_runner import in_a_process

from bptt.run_folder import RunFolder
from bptt.sweeps.manifest import Manifest

WORDS = [
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=2", "task.validation_batches=1",
    "model.hidden_size=4", "logger=none", "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum",
    "~callbacks.parameter_norms", "trainer.enable_progress_bar=false", "+callbacks.own._target_=own.Own",
]  # fmt: skip
OWN = """
import os
import signal
from pathlib import Path

from lightning import Callback


class Own(Callback):
    def __init__(self):
        if Path("stop").exists():
            Path("stop").unlink()
            os.kill(os.getpid(), signal.SIGINT)

    def setup(self, trainer, pl_module, stage):
        if os.environ.get("BPTT_KILL"):
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    return tmp_path


def batches(run: Path) -> int:
    return int(RunFolder(run).read_summary()["counters"]["batches"])


@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_that_is_killed_once_its_settings_are_longer(folder: Path, devices: int) -> None:
    """With two processes, the second one takes the first one's settings for those of a finished run otherwise."""
    several = [f"trainer.devices={devices}", "trainer.strategy=ddp"] if devices > 1 else []
    words, run = [*WORDS, *several, "hydra.run.dir=run"], folder / "run"
    environment = {"PYTHONPATH": str(folder)}
    begun = in_a_process("train.py", *words, cwd=folder, **environment)
    assert begun.returncode == 0, begun.stderr
    longer = [*words, "resume=auto", "trainer.max_epochs=3"]
    if devices == 1:
        killed = in_a_process("train.py", *longer, cwd=folder, BPTT_KILL="1", **environment)
        assert killed.returncode == -9
        assert "max_epochs: 3" in RunFolder(run).config.read_text(encoding="utf-8")
        assert RunFolder(run).status == "interrupted"
    done = in_a_process("train.py", *longer, cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    assert RunFolder(run).status == "completed"
    assert batches(run) == 6


def test_jobs_that_were_to_become_longer_and_did_not_begin(folder: Path) -> None:
    words, environment = ["-m", *WORDS, "seed=1,2", "hydra.sweep.dir=sweep"], {"PYTHONPATH": str(folder)}
    begun = in_a_process("train.py", *words, cwd=folder, **environment)
    assert begun.stdout.endswith("2 completed\n"), begun.stderr
    (folder / "stop").touch()
    stopped = in_a_process("train.py", *words, "trainer.max_epochs=3", cwd=folder, **environment)
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1].startswith("error: 2 interrupted: seed-1, seed-2")
    assert Manifest(folder / "sweep").newest()["seed-1"]["state"] == "interrupted"
    done = in_a_process("train.py", *words, "trainer.max_epochs=3", cwd=folder, **environment)
    assert done.stdout.endswith("\n2 completed\n"), done.stderr
    assert [batches(folder / "sweep" / name) for name in ("seed-1", "seed-2")] == [6, 6]
    again = in_a_process("train.py", *words, "trainer.max_epochs=3", cwd=folder, **environment)
    assert again.stdout == "sweep: 2 completed\n"
