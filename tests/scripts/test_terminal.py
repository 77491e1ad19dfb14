"""Training in a terminal, where a bar is drawn again and again."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.pseudo_terminal import PseudoTerminal

WORDS = (
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.validation_batches=1", "model.hidden_size=6",
    "trainer.max_epochs=2", "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "logger=none",
)  # fmt: skip

Open = Callable[..., PseudoTerminal]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    opened: list[PseudoTerminal] = []

    def open_terminal(*words: str) -> PseudoTerminal:
        opened.append(PseudoTerminal("train.py", *words, *WORDS, cwd=tmp_path))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


def test_a_run_fits_into_80_columns(terminal: Open, tmp_path: Path) -> None:
    run = terminal("task.train_batches=40", "hydra.run.dir=run")
    assert run.read_to_end() == 0, run.screen
    assert "validation after       40 updates: loss" in run.screen
    assert "batch 80/80" in run.screen
    assert "run folder   run" in run.screen
    assert max(map(len, run.lines())) <= 80
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["status"] == "completed"


def test_jobs_of_a_sweep_follow_each_other(terminal: Open) -> None:
    sweep = terminal("-m", "seed=1,2", "task.train_batches=4", "hydra.sweep.dir=sweep")
    assert sweep.read_to_end() == 0, sweep.screen
    assert sweep.screen.count("validation after        4 updates: loss") == 2
    assert "2 completed" in sweep.screen


def test_ctrl_c_says_what_was_saved(terminal: Open) -> None:
    run = terminal("task.train_batches=100000", "hydra.run.dir=run")
    run.read_until("loss")
    run.press("\x03")
    assert run.read_to_end() == 128 + signal.SIGINT, run.screen
    assert "interrupted by SIGINT: saved after" in run.screen
    assert "Traceback" not in run.screen


def test_a_terminal_that_closes_stops_the_run_after_a_checkpoint(terminal: Open, tmp_path: Path) -> None:
    run = terminal("task.train_batches=100000", "hydra.run.dir=run")
    run.read_until("loss")
    run.hang_up()
    assert run.read_to_end() == 128 + signal.SIGHUP
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["status"] == "interrupted"
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
