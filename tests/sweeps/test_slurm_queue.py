"""Which jobs of a sweep are in Slurm's queue, by a program in squeue's place that prints what a file says."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from bptt.run_folder import RunStatus
from bptt.sweeps import slurm
from bptt.sweeps.report import Job, report
from bptt.sweeps.slurm import SubmittedJobs, ended, queued


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that squeue shows; without it squeue fails."""
    programs, shown = tmp_path / "bin", tmp_path / "queue"
    programs.mkdir()
    (programs / "squeue").write_text(f"#!/bin/sh\nexec /bin/cat {shown}\n", encoding="utf-8")
    (programs / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    shown.write_text("7 RUNNING None\n12_0 PENDING Priority\n12_1 PENDING Resources\n", encoding="utf-8")
    return shown


def job(folder: Path, number: str, *, num_tasks: int = 1) -> Any:
    tasks = [SimpleNamespace(paths=SimpleNamespace(result_pickle=folder / f"{number}_{task}")) for task in (0, 1)]
    return SimpleNamespace(job_id=number, num_tasks=num_tasks, task=tasks.__getitem__)


def test_jobs_in_the_queue_are_not_missing(queue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the end of a launch that Ctrl-C interrupts."""
    SubmittedJobs(tmp_path).add({"a": "12_0", "b": "12_2"})
    assert not report(tmp_path, [Job(name, [], RunStatus.MISSING) for name in "ab"], interrupted=True)
    line = "error: 1 missing, 1 running: a, b; the same command runs what is left; 1 still in Slurm's queue"
    assert capsys.readouterr().err == f"{line}\n"


def test_jobs_of_a_former_launch(queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = SubmittedJobs(tmp_path)
    assert submitted.in_queue() == set()
    submitted.add({"a": "12_0", "b": "12_2"})
    submitted.add({"c": "7"})
    assert submitted.in_queue() == {"a", "c"}
    queue.unlink()
    assert queued() is None
    assert submitted.in_queue() == {"a", "b", "c"}, "nothing is submitted twice while the controller is away"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert submitted.in_queue() == set(), "a machine without Slurm"
    for content in ("{", "[1]", "[" * 100_000):
        submitted.path.write_text(content, encoding="utf-8")
        assert submitted.numbers() == {}


def test_jobs_whose_launch_was_killed_before_its_record(queue: Path, tmp_path: Path) -> None:
    """They are not submitted again while they are in the queue. Jobs of other sweeps do not matter."""
    scripts, submitted = tmp_path / ".submitit", SubmittedJobs(tmp_path)
    queue.write_text(f"7 /other/.submitit/.a.sh\n12_0 {scripts}/.a.sh\n12_1 {scripts}/.a.sh\n", encoding="utf-8")
    submitted.add({"a": "12_0"})
    with pytest.raises(ValueError, match=r"must be in slurm_jobs\.json, got \['12_1'\]; wait .* or say scancel 12_1"):
        submitted.check_all_recorded(scripts)
    submitted.add({"b": "12_1"})
    submitted.check_all_recorded(scripts)
    queue.unlink()
    submitted.check_all_recorded(scripts)


def test_a_job_without_a_result_that_left_the_queue(
    queue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm, "GRACE", 0.1)
    jobs = {"done": job(tmp_path, "5"), "lost": job(tmp_path, "6"), "running": job(tmp_path, "12_0", num_tasks=2)}
    (tmp_path / "5_0").touch()
    found = ended(jobs)
    assert next(found) == ("done", True)
    assert next(found) == ("lost", False)
    assert capsys.readouterr().err == "Slurm: 2 left, pending priority\n"
    (tmp_path / "12_0_0").touch()
    (tmp_path / "12_0_1").touch()
    assert list(found) == [("running", True)]


def test_a_job_that_failed_outside_its_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Out of time while it started, for example: it has left no record."""
    pytest.importorskip("submitit", reason="the extra `launchers` is not installed")
    job_return = import_module("hydra_plugins.bptt_slurm").job_return
    failed = JobReturn(status=JobStatus.FAILED, _return_value=RuntimeError("timed-out\ntoo many times"))
    task = SimpleNamespace(result=lambda: failed, paths=SimpleNamespace(stderr=tmp_path / "log"))
    assert job_return("seed-1", SimpleNamespace(job_id="3_1", task=lambda _: task), has_result=True) is failed
    line = f"seed-1: Slurm's job 3_1 failed: timed-out too many times; its log is {tmp_path / 'log'}\n"
    assert capsys.readouterr().err == line
