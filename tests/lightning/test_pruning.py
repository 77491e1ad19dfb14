"""Runs that are behind the others end early, and no other run does."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.permissions import without_permission
from support.training import Frozen, Sgd, make_module, make_trainer
from support.two_processes import Kill, Killed

from bptt.lightning.callbacks.checkpoint import Checkpoint
from bptt.lightning.callbacks.pruning import Pruning, is_behind, others
from bptt.lightning.callbacks.summary import RunSummary
from bptt.lightning.checkpoint_files import newest_checkpoint
from bptt.lightning.data import TaskData
from bptt.run_folder import RunFolder
from bptt.tasks.adding import Adding

GOOD = partial(torch.optim.Adam, lr=0.01)
AT = [30, 60, 90, 120]  # timesteps at which a run is validated


def run(
    folder: Path, optimizer: Any, *, weight: float = 0.0, kill: int | None = None, **options: Any
) -> tuple[str, list[int]]:
    """Twelve batches of 10 timesteps with four validations; how it ended, and when it was validated.

    weight: what is added to all weights at the start, which makes a bad model.
    """
    torch.manual_seed(1)
    task = Adding(length=10, batch_size=4, seed=1, train_batches=12, validation_batches=2, test_batches=1)
    module = make_module(task, optimizer=optimizer)
    with torch.no_grad():
        for parameter in module.model.parameters():
            parameter.add_(weight)
    pruning = Pruning(**{"num_others": 2, "num_validations": 2, **options})
    callbacks = [RunSummary(), pruning, Checkpoint(every_n_updates=1), *([Kill(kill)] if kill else [])]
    trainer = make_trainer(default_root_dir=folder, val_check_interval=3, callbacks=callbacks)
    trainer.fit(module, datamodule=TaskData(module), ckpt_path=newest_checkpoint(folder)[0], weights_only=True)
    status: str = json.loads((folder / "summary.json").read_text())["status"]
    return status, [int(at) for at in json.loads(RunFolder(folder).validations.read_text())["scores"]]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of which two runs are over: the first had nobody to compare with, and the second one run."""
    for name, optimizer in (("0", GOOD), ("1", partial(torch.optim.Adam, lr=0.02))):
        assert run(tmp_path / name, optimizer) == ("completed", AT)
    return tmp_path


def test_a_run_behind_the_median_ends_early(sweep: Path) -> None:
    """It ends at the second validation, because two are guaranteed. It has a checkpoint and a score."""
    assert run(sweep / "bad", Frozen, weight=1.0) == ("pruned", AT[:2])
    assert newest_checkpoint(sweep / "bad")[0] is not None
    assert "validation/loss" in json.loads((sweep / "bad" / "summary.json").read_text())["metrics"]


def test_a_pruned_run_that_was_killed_before_its_end_does_not_train_on(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sweep / "bad", Frozen, weight=1.0) == ("pruned", AT[:2])
    (sweep / "bad" / "summary.json").unlink()  # its process died after the last checkpoint
    assert run(sweep / "bad", Frozen, weight=1.0) == ("pruned", AT[:2])
    assert "the run had been pruned: it does not become longer" in capsys.readouterr().out


def test_a_run_better_than_the_median_continues(sweep: Path) -> None:
    assert run(sweep / "good", GOOD) == ("completed", AT)


def test_runs_of_another_task_or_metric_are_no_others(sweep: Path) -> None:
    for name in ("0", "1"):
        content = json.loads(RunFolder(sweep / name).validations.read_text())
        assert content["of"] == "Adding: validation/loss"
        RunFolder(sweep / name).validations.write_text(json.dumps({**content, "of": "CopyMemory: validation/loss"}))
    assert run(sweep / "bad", Frozen, weight=1.0) == ("completed", AT)


def test_pruning_needs_enough_other_runs_and_validations(sweep: Path) -> None:
    assert run(sweep / "others", Frozen, weight=1.0, num_others=3) == ("completed", AT)
    assert run(sweep / "validations", Frozen, weight=1.0, num_validations=3) == ("pruned", AT[:3])
    # At its end a run is complete, however bad.
    assert run(sweep / "end", Frozen, weight=1.0, num_validations=4) == ("completed", AT)


def test_others_count_with_what_they_had_by_then() -> None:
    """Means 5 and 7, median 6, at 60 timesteps. What came later is not looked at, and neither is a run not as far."""
    others = [{30: 6.0, 60: 4.0, 90: 100.0}, {30: 7.0, 60: 7.0}, {30: 1.0}]
    for score, behind in ((5.9, False), (6.0, False), (6.1, True)):
        assert is_behind({30: 9.0, 60: score}, others, num_others=2) is behind
        assert not is_behind({30: 9.0, 60: score}, others, num_others=3)


def test_the_folder_of_another_user_is_passed_over(open_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("run", "closed", "z"):
        (open_folder / name).mkdir()
        text = json.dumps({"of": "Adding: loss", "scores": {"10": 1.0}})
        RunFolder(open_folder / name).validations.write_text(text, encoding="utf-8")
    with without_permission(open_folder / "closed"):
        assert others(open_folder / "run", of="Adding: loss") == [{10: 1.0}]
    assert "Permission denied" in capsys.readouterr().out


ODD = ['{"of": "Adding: loss", "sco', "[1]", "5", '{"of": 1}', "", "[" * 100_000, '{"of": "a", "scores": {"x": 1}}']


@pytest.mark.parametrize("content", [*ODD, f'{{"of": "a", "scores": {{"1": 1{"0" * 400}}}}}'])
def test_what_a_neighbour_left_is_passed_over(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Torn by a kill, or no scores at all; the line names the file."""
    path = RunFolder(tmp_path / "0").validations
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    assert others(tmp_path / "run", of="Adding: loss") == []
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"pruning ignores {path}: ")


def test_the_best_score_is_what_counts() -> None:
    assert not is_behind({30: 5.0, 60: 50.0}, [{30: 6.0, 60: 6.0}], num_others=1)


def test_scores_that_are_no_numbers_are_the_worst() -> None:
    assert is_behind({30: math.inf}, [{30: 1.0}, {30: 2.0}], num_others=2)
    assert not is_behind({30: math.inf}, [{30: math.inf}, {30: math.inf}], num_others=2)


def test_larger_is_better_with_mode_max(sweep: Path) -> None:
    """With mode=max and the loss as metric, a bad model is far ahead of the others."""
    for name in ("0", "1"):
        run(sweep / "max" / name, GOOD, mode="max")
    assert run(sweep / "max" / "large", Frozen, weight=1.0, mode="max") == ("completed", AT)
    assert run(sweep / "max" / "small", Sgd, mode="max", num_others=3)[0] == "pruned"


def test_a_resumed_run_keeps_its_scores(sweep: Path) -> None:
    """Killed between the second validation and the third."""
    with pytest.raises(Killed):
        run(sweep / "cut" / "0", GOOD, kill=8)
    assert run(sweep / "cut" / "0", GOOD) == ("completed", AT)
    assert RunFolder(sweep / "cut" / "0").validations.read_text() == RunFolder(sweep / "0").validations.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "least"}, "mode must be min or max, got 'least'"),
        ({"num_others": 0}, "num_others must be an integer >= 1, got 0"),
        ({"num_validations": 0}, "num_validations must be an integer >= 1, got 0"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pruning(**options)


def test_a_metric_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be one of .*validation/loss.*; got validation/nosuch"):
        run(tmp_path / "0", GOOD, monitor="validation/nosuch")
