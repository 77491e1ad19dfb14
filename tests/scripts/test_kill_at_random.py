"""A run that SIGKILL ends again and again is the run that nobody killed, to the bit; at length by the script itself."""

import shutil
from pathlib import Path

import pytest
from kill_at_random import CASES, ESTIMATORS, TASKS, differences, kill_at_random, make_case
from support.training import callbacks_of

from bptt.configuration.build import build_trainer
from bptt.configuration.compose import compose_config
from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.summary import RunSummary


def test_three_kills(tmp_path: Path) -> None:
    told = list(kill_at_random(tmp_path, kills=3, seed=4, cases=[("randomized", "lag_bits")]))
    assert sum(": kill " in line for line, _ in told) == 3
    assert "the same to the bit" in told[-1][0]
    assert not any(found for _, found in told)


def test_a_run_that_has_ended_stays_as_it_is(tmp_path: Path) -> None:
    """Asked to go on it has nothing to do; as after a kill between the last checkpoint and the end of the process."""
    case = make_case(tmp_path / "case", "chunked", "copy_memory")
    case.train_whole()
    shutil.copytree(case.whole, case.cut)
    case.finish()
    assert differences(case.whole, case.cut) == []
    # … and what differs is named.
    text = (case.cut / "summary.json").read_text()
    (case.cut / "summary.json").write_text(text.replace('"updates": ', '"updates": 1'))
    assert differences(case.whole, case.cut) == ["summary.json: counters"]


def test_a_run_that_is_killed_after_its_last_checkpoint(tmp_path: Path) -> None:
    """Its status is not completed yet, so the same command writes what comes at the end."""
    case = make_case(tmp_path / "case", "chunked", "copy_memory")
    case.train_whole()
    shutil.copytree(case.whole, case.cut)
    text = (case.cut / "summary.json").read_text()
    (case.cut / "summary.json").write_text(text.replace('"completed"', '"running"'))
    (case.cut / "gradient_flow.png").unlink()
    case.finish()
    assert differences(case.whole, case.cut) == []
    assert (case.cut / "gradient_flow.png").exists()


def test_every_estimator_and_carrying_task_has_its_case() -> None:
    assert {estimator for estimator, _ in CASES} == set(ESTIMATORS)
    assert {task for _, task in CASES} == set(TASKS)


@pytest.mark.parametrize("choice", ["default", "bias"])
def test_the_last_checkpoint_comes_when_all_else_is_done(choice: str, tmp_path: Path) -> None:
    trainer = build_trainer(compose_config([f"callbacks={choice}"]), tmp_path)
    *_, last_but_one, last = callbacks_of(trainer)
    assert isinstance(last_but_one, Checkpoint)
    assert isinstance(last, RunSummary), "its status is completed after all else is written"
