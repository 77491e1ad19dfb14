"""One small run for all tests of the scripts."""

import random
from pathlib import Path

import pytest
from support.script_runner import FinishedRun, in_a_process


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4000 bytes with something to learn: digits that count up, with a few letters thrown in."""
    path = tmp_path_factory.mktemp("text") / "digits.txt"
    letters = random.Random(0)
    path.write_text("".join(str(i % 10) if letters.random() < 0.9 else letters.choice("abc") for i in range(4000)))
    return path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, text: Path) -> FinishedRun:
    """Trained by the command line, in a process of its own, in a folder and with a temporary folder of its own."""
    root = tmp_path_factory.mktemp("session")
    (root / "tmp").mkdir()
    (root / "work").mkdir()
    words = (
        "task=text",
        f"task.path={text}",
        "task.length=60",
        "task.batch_size=4",
        "model=gru",
        "model.hidden_size=12",
        "model.num_layers=2",
        "model.dropout=0.1",
        "estimator.chunk_size=20",
        "trainer.max_epochs=1",
        "trainer.val_check_interval=1.0",
        "trainer.log_every_n_steps=3",
        "hydra.run.dir=run",
    )
    done = in_a_process("train.py", *words, cwd=root / "work", TMPDIR=str(root / "tmp"))
    assert done.returncode == 0, done.stderr
    return FinishedRun(root / "work" / "run", words, done.stdout)
