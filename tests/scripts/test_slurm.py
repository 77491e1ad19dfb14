"""Sweeps and runs on a real Slurm: a requeued job has the same result as an uninterrupted one, to the bit."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from support.script_runner import SCRIPTS, in_a_new_interpreter, in_a_process
from support.slurm import MISSING, free_ports, slurm, wait_until

from bptt.run_folder import RunFolder, RunStatus
from bptt.sweeps.manifest import Manifest
from bptt.sweeps.slurm import SubmittedJobs

pytest.importorskip("submitit", reason="the extra `launchers` is not installed")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} of Slurm and Munge: not installed")

# Some seconds of training, a checkpoint every few milliseconds, and nothing that draws.
WORDS = (
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=1500", "task.validation_batches=2",
    "model.hidden_size=6", "trainer.enable_progress_bar=false", "callbacks.checkpoint.every_n_updates=20",
    "logger=none", "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "~callbacks.parameter_norms",
    "resume=auto",
)  # fmt: skip
SMALL = ("hydra/launcher=slurm", "hydra.launcher.mem_gb=1", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${seed}")
PATIENCE = 240  # seconds, on a machine that does other things too


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with slurm() as variables:
        yield variables


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def sweep(cluster: dict[str, str], work: Path) -> Path:
    """Seeds 1 and 2 side by side. In the middle the first gets the signal that Slurm sends before the time is over."""
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", *WORDS, *SMALL, "seed=1,2"]
    environment = {**cluster, "OMP_NUM_THREADS": "1"}
    log = work / "sweep.log"
    with log.open("w") as out, subprocess.Popen(command, cwd=work, env=environment, stdout=out, stderr=out) as process:
        try:
            checkpoint = work / "sweep" / "1" / "checkpoints" / "previous.ckpt"
            wait_until(lambda: checkpoint.exists() or process.poll() is not None, work, patience=PATIENCE)
            (job,) = (path.name for path in (work / "sweep" / ".submitit").glob("*_0"))
            subprocess.run(["scancel", "--signal=USR1", job], env=cluster, check=True)
            assert process.wait(PATIENCE) == 0, log.read_text()
        finally:
            process.kill()
    return work / "sweep"


def test_a_job_out_of_time_is_requeued_and_resumed(sweep: Path, work: Path) -> None:
    assert num_starts(sweep, 0) == 2
    done = in_a_process("train.py", *WORDS, "seed=1", "hydra.run.dir=whole", cwd=work)
    assert done.returncode == 0, done.stderr
    assert_same(sweep / "1", work / "whole")


def test_a_requeued_run_is_resumed(cluster: dict[str, str], sweep: Path, work: Path) -> None:
    """Without a launcher: sbatch with a script that sets the run folder and resume=auto."""
    assert num_starts(sweep, 1) == 1
    script = work / "job.sh"
    words = " ".join(f"'{word}'" for word in (*WORDS, "seed=2", "hydra.run.dir=run"))
    script.write_text(f"#!/bin/sh\necho began\nexec srun {sys.executable} {SCRIPTS / 'train.py'} {words}\n")
    submit = ["sbatch", "--parsable", "--open-mode=append", "--ntasks-per-node=1", "--output=job.log", "job.sh"]
    environment = {**cluster, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(submit, cwd=work, env=environment, check=True, capture_output=True, text=True)
    job = done.stdout.strip()
    wait_until((work / "run" / "checkpoints" / "previous.ckpt").exists, work, patience=PATIENCE)
    subprocess.run(["scontrol", "requeue", job], env=cluster, check=True)
    summary = work / "run" / "summary.json"
    for status in ("interrupted", "completed"):
        wait_until(partial(has_status, summary, status), work, patience=PATIENCE)
    assert (work / "job.log").read_text().count("began") == 2
    assert_same(work / "run", sweep / "2")


SLOW = """
import os, subprocess, time
from pathlib import Path
from lightning import Callback

class Stopped(Callback):
    def __init__(self):
        if os.environ.get("SLURM_PROCID") == "0":
            subprocess.run(["scancel", "--signal=TERM", os.environ["SLURM_JOB_ID"]], check=True)
            time.sleep(3)

class Slow(Callback):
    def setup(self, trainer, pl_module, stage):
        run = Path(trainer.default_root_dir)
        begun = run.parent / "begun"
        if run.name == "5" and not begun.exists():
            begun.touch()
            time.sleep(200)
"""


def test_a_job_that_is_preempted_before_training_is_no_failure(cluster: dict[str, str], tmp_path: Path) -> None:
    """submitit requeues it and leaves by sys.exit, as when a large file is being read."""
    (tmp_path / "slow.py").write_text(SLOW)
    words = (*WORDS, *SMALL, "task.train_batches=20", "+callbacks.slow._target_=slow.Slow", "seed=5,6")
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", *words]
    environment = {**cluster, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: (tmp_path / "sweep" / "begun").exists(), tmp_path, patience=PATIENCE)
            (job,) = (path.name for path in (tmp_path / "sweep" / ".submitit").glob("*_0"))
            subprocess.run(["scancel", "--signal=USR1", job], env=cluster, check=True)
            _, said = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert num_starts(tmp_path / "sweep", 0) == 2
    assert RunFolder(tmp_path / "sweep" / "5").status == RunStatus.COMPLETED


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_that_is_cancelled_before_training_stops_at_its_start(
    cluster: dict[str, str], tmp_path: Path, processes: int
) -> None:
    """submitit would ignore the signal until Slurm kills the job. The second process waits for the first one."""
    (tmp_path / "slow.py").write_text(SLOW)
    both = (f"trainer.devices={processes}", f"hydra.launcher.tasks_per_node={processes}")
    words = (*WORDS, *SMALL, *both, "trainer.strategy=ddp", "+callbacks.stopped._target_=slow.Stopped", "seed=7")
    environment = {**cluster, "MASTER_PORT": str(free_ports(1)[0]), "PYTHONPATH": str(tmp_path)}
    done = in_a_new_interpreter("train.py", "-m", *words, cwd=tmp_path, **environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: 1 interrupted: 7; the same command runs what is left"
    run = RunFolder(tmp_path / "sweep" / "7")
    assert run.status == RunStatus.INTERRUPTED
    assert torch.load(run.last_checkpoint, weights_only=True)["bptt"]["counters"]["updates"] == 0


def test_two_processes_share_a_job(cluster: dict[str, str], tmp_path: Path) -> None:
    """Also after it was queued again: the second process waits for what the first one decides in this attempt."""
    both = ("trainer.devices=2", "trainer.strategy=ddp", "hydra.launcher.tasks_per_node=2", "task.train_batches=500")
    environment = {**cluster, "MASTER_PORT": str(free_ports(1)[0]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", *WORDS, *SMALL, *both, "seed=1"]
    run, log = RunFolder(tmp_path / "sweep" / "1"), tmp_path / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out) as sweep,
    ):
        try:
            wait_until(
                lambda: run.previous_checkpoint.exists() or sweep.poll() is not None, tmp_path, patience=PATIENCE
            )
            (job,) = SubmittedJobs(tmp_path / "sweep").numbers().values()
            subprocess.run(["scancel", "--signal=USR1", job], env=cluster, check=True)
            assert sweep.wait(PATIENCE) == 0, log.read_text()
        finally:
            sweep.kill()
    content = torch.load(run.last_checkpoint, weights_only=True)["bptt"]
    assert len(content["processes"]) == 2
    assert content["counters"]["batches"] == 500
    attempts = [record["attempt"] for record in Manifest(tmp_path / "sweep").records() if record["job"]]
    assert list(dict.fromkeys(attempts)) == [f"{job}.0", f"{job}.1"]


def test_equal_trials_of_two_processes_train_once(cluster: dict[str, str], tmp_path: Path) -> None:
    """The second process of the trial that waits is told that nothing is left; it waited for its first one."""
    both = ("trainer.devices=2", "trainer.strategy=ddp", "hydra.launcher.tasks_per_node=2", "task.train_batches=20")
    study = ("sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", "optimizer.lr=choice(0.01)")
    environment = {**cluster, "MASTER_PORT": str(free_ports(1)[0])}
    done = in_a_new_interpreter("train.py", "-m", *WORDS, *SMALL, *both, *study, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    records = [record["state"] for record in Manifest(tmp_path / "sweep").records() if record["job"]]
    assert records == ["running", "completed", "completed"]


def test_a_launch_that_was_killed_and_a_job_that_was_cancelled(cluster: dict[str, str], tmp_path: Path) -> None:
    """The next launch leaves alone what still runs, and waits no longer for a job that is cancelled."""
    words = (*WORDS, *SMALL, "task.train_batches=1000000", "seed=3,4")
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", *words]
    environment = {**cluster, "OMP_NUM_THREADS": "1"}
    jobs = [RunFolder(tmp_path / "sweep" / seed) for seed in ("3", "4")]
    with (tmp_path / "one.log").open("w") as out:
        first = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
        wait_until(lambda: all(job.previous_checkpoint.exists() for job in jobs), tmp_path, patience=PATIENCE)
        numbers = SubmittedJobs(tmp_path / "sweep").numbers()
        first.kill()
        first.wait()
    again = in_a_process("train.py", "-m", *words, cwd=tmp_path, **environment)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1] == "error: 2 running: 3, 4"
    assert SubmittedJobs(tmp_path / "sweep").numbers() == numbers

    # As if it had been killed before it wrote the numbers down: no job is submitted beside those that are not known.
    SubmittedJobs(tmp_path / "sweep").path.rename(tmp_path / "record")
    other = in_a_process("train.py", "-m", *words[:-1], "seed=3,4,5", cwd=tmp_path, **environment)
    assert other.returncode == 1
    assert f"must be in slurm_jobs.json, got {sorted(numbers.values())}; wait until they end" in other.stderr
    assert not jobs[0].path.with_name("5").exists()
    (tmp_path / "record").rename(SubmittedJobs(tmp_path / "sweep").path)

    subprocess.run(["scancel", numbers["3"]], env=cluster, check=True)
    wait_until(lambda: not jobs[0].is_locked, tmp_path, patience=PATIENCE)
    wait_until(lambda: numbers["3"] not in shown(cluster), tmp_path, patience=PATIENCE)
    with (tmp_path / "two.log").open("w") as out:
        third = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
        wait_until(lambda: jobs[0].status == RunStatus.RUNNING, tmp_path, patience=PATIENCE)
        submitted = SubmittedJobs(tmp_path / "sweep").numbers()
        assert submitted["3"] != numbers["3"], "the cancelled job alone was submitted again"
        assert submitted["4"] == numbers["4"]
        subprocess.run(["scancel", submitted["3"]], env=cluster, check=True)
        try:
            assert third.wait(PATIENCE) == 1
        finally:
            third.kill()
            subprocess.run(["scancel", numbers["4"]], env=cluster, check=True)
    lines = (tmp_path / "two.log").read_text().splitlines()
    assert any(line.startswith(f"3: Slurm's job {submitted['3']} was cancelled or lost") for line in lines)
    assert lines[-1] == "error: 1 interrupted, 1 running: 3, 4; the same command runs what is left"
    assert "Traceback" not in "".join(lines)


def test_a_refused_job_says_why_and_a_skipped_one_nothing(cluster: dict[str, str], tmp_path: Path) -> None:
    """Their folders are gone before submitit's last message."""
    own = ("estimator.chunk_size=0,2", "sweep.fail_fast=true", "hydra.launcher.array_parallelism=1")
    words = (*WORDS, *SMALL[:-1], *own, "hydra.sweep.subdir=${estimator.chunk_size}")
    done = in_a_process("train.py", "-m", *words, cwd=tmp_path, **{**cluster, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 1
    refused = "estimator: chunk_size must be an integer >= 1, got 0; use estimator=full for no truncation"
    first, last = (line for line in done.stderr.splitlines() if not line.startswith("Slurm: "))
    assert first.startswith("0: Slurm's job ")
    assert refused in first
    assert last == f"error: 1 failed, 1 missing: 0: {refused}"
    assert not list(tmp_path.glob("sweep/[02]"))


def shown(cluster: dict[str, str]) -> str:
    return subprocess.run(["squeue", "-h", "-r", "-o", "%i"], env=cluster, capture_output=True, text=True).stdout


def num_starts(sweep: Path, number: int) -> int:
    """Number of times that Slurm started a job of a sweep."""
    (log,) = (sweep / ".submitit").glob(f"*_{number}/*_log.out")
    return sum("Starting with" in line and line.startswith("submitit") for line in log.read_text().splitlines())


def has_status(summary: Path, status: str) -> bool:
    return bool(json.loads(summary.read_text(encoding="utf-8"))["status"] == status)


def assert_same(run: Path, other: Path) -> None:
    first, second = (torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (run, other))
    assert first["bptt"]["counters"]["batches"] == 1500
    for name in ("data", "encoding"):
        assert first["bptt"].pop(name) == second["bptt"].pop(name)
    for key in ("state_dict", "optimizer_states", "bptt"):
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=0)
