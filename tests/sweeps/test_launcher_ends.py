"""A sweep ends with its own line if its workers are killed, on Ctrl-C, and beside the jobs of another launch."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from bptt.run_folder import RunFolder, RunStatus
from bptt.sweeps.report import Job
from bptt.sweeps.running_job import remove_unused
from bptt.sweeps.sweeper import GridSweeper


class TerminatedWorkerError(Exception):
    """As joblib raises it."""


class Sweep(GridSweeper):
    """Three jobs whose launcher raises."""

    def __init__(self, folder: Path, error: BaseException | None, states: Sequence[RunStatus]):
        # Without `super`: Hydra loads its own sweeper again at every start, so the base class may be a former one.
        self.max_batch_size, self.batch_index = None, 0

        def launch(*_: Any, **__: Any) -> Any:
            assert error is not None, "nothing is left to launch"
            raise error

        self.launcher: Any = SimpleNamespace(launch=launch)
        self.config = OmegaConf.create(
            {"hydra": {"sweep": {"dir": str(folder)}, "launcher": {"_target_": "own"}}, "sweep": {"dry_run": False}}
        )
        self.states = states

    def jobs(self, sweep: Path, arguments: Sequence[str]) -> list[Job]:
        return [Job(f"seed-{number}", [f"seed={number}"], state) for number, state in enumerate(self.states, 1)]


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (TerminatedWorkerError("a worker\nwas killed"), "TerminatedWorkerError: a worker was killed", 1),
        (KeyboardInterrupt(), "interrupted by Ctrl-C", 130),
        (KeyboardInterrupt("SIGTERM"), "interrupted by SIGTERM", 143),
    ],
)
def test_jobs_that_did_not_run_are_named(
    tmp_path: Path, error: BaseException, line: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        Sweep(tmp_path / "sweep", error, [RunStatus.MISSING] * 3).sweep([])
    assert left.value.code == code
    ending = "error: 3 missing: seed-1, seed-2, seed-3; the same command runs what is left"
    assert capsys.readouterr().err.splitlines() == [line, ending]


def test_what_a_launcher_refuses_is_not_said_to_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Sweep(tmp_path / "sweep", RuntimeError("no such partition"), [RunStatus.MISSING] * 2).sweep([])
    assert capsys.readouterr().err.splitlines() == [
        "RuntimeError: no such partition",
        "error: 2 missing: seed-1, seed-2",
    ]


def test_a_sweep_beyond_slurms_limit_of_an_array_says_what_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = RuntimeError("sbatch: error: Batch job submission failed: Invalid job array specification")
    with pytest.raises(SystemExit):
        Sweep(tmp_path / "sweep", error, [RunStatus.MISSING] * 2).sweep([])
    assert "; say hydra.sweeper.max_batch_size=N" in capsys.readouterr().err.splitlines()[0]


def test_the_folder_of_a_refused_job_goes_unless_another_process_uses_it(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    with RunFolder(folder).locked():
        remove_unused(folder, folder / "train.log")
        assert folder.exists()
    remove_unused(folder, folder / "train.log")
    assert not folder.exists()


def test_a_process_logs_no_more_into_a_folder_that_another_removed(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    handler = logging.FileHandler(folder / "train.log")
    logging.root.addHandler(handler)
    try:
        shutil.rmtree(folder)
        remove_unused(folder, folder / "train.log")
        assert handler not in logging.root.handlers
    finally:
        logging.root.removeHandler(handler)
        handler.close()


def test_jobs_of_another_launch_are_left_alone(tmp_path: Path) -> None:
    states = [RunStatus.COMPLETED, RunStatus.RUNNING, RunStatus.RUNNING]
    with pytest.raises(SystemExit, match=r"error: 1 completed, 2 running: seed-2, seed-3$"):
        Sweep(tmp_path / "sweep", None, states).sweep([])
    assert not (tmp_path / "sweep").exists()
