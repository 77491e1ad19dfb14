"""Sweeps in processes of their own on this machine, and Optuna that tunes by their validation loss."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import joblib
import pytest
import yaml
from support.script_runner import SCRIPTS, TESTS, in_a_new_interpreter, in_a_process, is_alive

from bptt.configuration.errors import fault_of_study
from bptt.run_folder import RunFolder
from bptt.sweeps.manifest import Manifest

SMALL = (
    "task=copy_memory", "task.delay=3", "task.batch_size=4", "task.train_batches=8", "task.validation_batches=1",
    "model.hidden_size=4", "logger=none", "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum",
    "trainer.val_check_interval=0.25",
)  # fmt: skip


def test_optuna_tunes_by_the_validation_loss(tmp_path: Path) -> None:
    """The ready study, made small: a trial that learns, one that diverges and has failed, and after them one that does
    not learn and is pruned for it. Each computes on its share of the cores.
    """
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    variables["PYTHONPATH"] = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    study = ("hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", "hydra.launcher.n_jobs=2")
    rates = ("optimizer.lr=choice(0.01, 1e-9, 1e38)", "callbacks.pruning.num_others=1", "hydra.sweeper.sampler.seed=6")
    folders = ("hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}")
    words = (*SMALL, *study, *rates, *folders, "+callbacks.threads._target_=support.sweep_callbacks.Threads")
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", "+sweep=tune_copy_memory", *words]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr

    runs = [tmp_path / "sweep" / str(number) for number in range(3)]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in runs]
    assert [summary["status"] for summary in summaries] == ["completed", "diverged", "pruned"]
    states = {record["job"]: record["state"] for record in Manifest(tmp_path / "sweep").newest().values()}
    assert states == {"0": "completed", "1": "failed", "2": "pruned"}
    scores = [json.loads(RunFolder(runs[number]).validations.read_text())["scores"] for number in (0, 2)]
    assert [len(each) for each in scores] == [4, 2]
    for folder in runs:
        assert (folder / "threads").read_text() == str(max(joblib.cpu_count() // 2, 1))

    result = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert result["best_params"].keys() == {"optimizer.lr", "estimator.chunk_size"}
    assert result["best_params"]["optimizer.lr"] == 0.01
    assert result["best_value"] == summaries[0]["metrics"]["validation/loss"]


def test_jobs_side_by_side_are_the_jobs_one_by_one(tmp_path: Path) -> None:
    """Also if the sweep is killed, and one of its workers: the jobs stop after a checkpoint, and resume from there."""
    small = (*SMALL, "task.train_batches=900", "seed=1,2", "hydra.sweep.subdir=${seed}")
    two = ("hydra.sweep.dir=two", "hydra/launcher=local", "hydra.launcher.n_jobs=2")
    done = in_a_process("train.py", "-m", *small, "hydra.sweep.dir=one", cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    jobs = [tmp_path / "two" / seed for seed in ("1", "2")]
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", *small, *two]
    log = tmp_path / "killed.log"
    with log.open("w") as out, subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out) as process:
        while not all((job / "checkpoints" / "last.ckpt").exists() for job in jobs):
            assert process.poll() is None
            time.sleep(0.01)
        started = children(process.pid)
        process.kill()
    deadline = time.monotonic() + 60
    while any(map(is_alive, started)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [RunFolder(job).read_summary()["status"] for job in jobs] == ["interrupted"] * 2
    assert "resource_tracker" not in log.read_text(encoding="utf-8")

    # One of the two workers is killed: joblib ends the other one, and the sweep ends with its own lines.
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as sweep:
        while not all(RunFolder(job).is_locked for job in jobs):
            assert sweep.poll() is None
            time.sleep(0.01)
        os.kill(workers(sweep.pid)[0], signal.SIGKILL)
        _, stderr = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    line, counted = stderr.splitlines()
    assert line.startswith("TerminatedWorkerError: ")
    assert counted == "error: 2 interrupted: 1, 2; the same command runs what is left"

    # A fork would wait for joblib's idle workers, which only a new interpreter ends at its exit.
    done = in_a_new_interpreter("train.py", "-m", *small, *two, cwd=tmp_path, PYTHONOPTIMIZE="2")
    assert done.returncode == 0, done.stderr
    for seed in ("1", "2"):
        first, second = (RunFolder(tmp_path / name / seed).read_summary() for name in ("one", "two"))
        assert first["status"] == second["status"] == "completed"
        assert first["metrics"] == second["metrics"]


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGHUP, False), (signal.SIGHUP, True)],
)
def test_a_signal_stops_jobs_side_by_side_after_a_checkpoint(number: int, group: bool, tmp_path: Path) -> None:
    """Ctrl-C and a closed terminal reach all processes of the group, kill the parent alone.

    joblib would kill the workers, and its tracker of resources would print tracebacks after a SIGHUP.
    """
    words = ("task.train_batches=100000", "trainer.val_check_interval=1.0", "trainer.enable_progress_bar=false")
    local = ("seed=1,2,3", "hydra/launcher=local", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", *SMALL, *words, *local]
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **options) as process:
        jobs = [RunFolder(tmp_path / "sweep" / f"seed-{seed}") for seed in (1, 2)]
        while not all(run.summary.exists() for run in jobs):
            assert process.poll() is None
            time.sleep(0.01)
        started = workers(process.pid)
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGHUP"
    ending = "error: 2 interrupted, 1 missing: seed-1, seed-2, seed-3; the same command runs what is left"
    assert stderr.splitlines()[-2:] == [f"interrupted by {name}", ending]
    assert len(re.findall("saved after [0-9,]+ updates in .*last.ckpt", stderr)) == 2
    assert all(run.last_checkpoint.exists() for run in jobs)
    records = Manifest(tmp_path / "sweep").newest()
    assert {job: record["state"] for job, record in records.items()} == dict.fromkeys(records, "interrupted")
    assert not list((tmp_path / "sweep").rglob("*.partial"))
    assert not any(map(is_alive, started))


@pytest.mark.parametrize("pause", [0.2, 0.5])
def test_workers_of_a_sweep_that_was_killed_while_they_began(pause: float, tmp_path: Path) -> None:
    """One that was sent a part of a job waited for the rest for ever."""
    local = ("seed=1,2", "hydra/launcher=local", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", *SMALL, "task.train_batches=100000", *local]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not workers(process.pid):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(pause)
        started = workers(process.pid)
        process.kill()
    deadline = time.monotonic() + 60
    while any(map(is_alive, started)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_study_goes_on_with_other_trials(tmp_path: Path) -> None:
    """The ready study has a seed, with which each launch began with the same trials."""
    storage = ("hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.study_name=study", "hydra/launcher=basic")
    words = (*SMALL, *storage, "hydra.sweeper.n_trials=1", "hydra.sweeper.n_jobs=1", "hydra.sweep.dir=sweep")
    for _ in range(2):
        done = in_a_process("train.py", "-m", "+sweep=tune_copy_memory", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    rates = [record["overrides"] for record in Manifest(tmp_path / "sweep").records() if record["job"]]
    assert len({next(word for word in each if word.startswith("optimizer.lr=")) for each in rates}) == 2


def workers(process: int) -> list[int]:
    """Processes in which joblib runs jobs."""
    return [child for child in children(process) if b"LokyProcess" in Path(f"/proc/{child}/cmdline").read_bytes()]


def children(process: int) -> list[int]:
    return [
        int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    ]


def test_equal_trials_at_the_same_time_train_once(tmp_path: Path) -> None:
    """One trains, the other one builds nothing and takes its result; it failed."""
    words = (*SMALL, "sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", "hydra.sweep.dir=sweep")
    local = ("hydra/launcher=local", "hydra.launcher.n_jobs=2", "optimizer.lr=choice(0.01)", "model.dropout=0.1")
    done = in_a_new_interpreter("train.py", "-m", *words, *local, "task.train_batches=1000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("model.dropout has no effect") <= 2  # two may build before one begins
    states = [record["state"] for record in Manifest(tmp_path / "sweep").newest().values()]
    assert states == ["completed"]


@pytest.mark.filterwarnings("ignore:Deprecated API features")  # of SQLAlchemy, in Optuna
def test_a_storage_that_is_no_database_to_write_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna.storages import RDBStorage

    wanted = "hydra.sweeper.storage must be a database to read and write, such as sqlite:///study.db in a folder that"
    monkeypatch.chdir(tmp_path)
    RDBStorage("sqlite:///study.db").engine.dispose()
    read_only = "sqlite:///file:study.db?mode=ro&uri=true"
    for storage in ("study.db", "sqlite:///missing/study.db", "nonsense://x", "postgresql://u@h/db", read_only):
        with pytest.raises(Exception, match=r"\w") as refused:
            RDBStorage(storage).create_new_study("s")
        assert fault_of_study(refused.value).startswith(f"{wanted} exists, got ")
    words = (*SMALL, "sweeper=optuna", "hydra.sweeper.storage=study.db", "optimizer.lr=choice(0.01)")
    done = in_a_new_interpreter("train.py", "-m", *words, "hydra.sweeper.study_name=s", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {wanted}")


@pytest.mark.parametrize("word", ["hydra/launcher=local", "hydra/launcher=slurm", "sweeper=optuna"])
def test_without_the_extra_a_line_says_what_to_install(word: str, tmp_path: Path) -> None:
    """`None` is what Python takes for a package that is not there."""
    script = SCRIPTS / "train.py"
    code = (
        f"import runpy, sys; sys.modules['hydra_plugins'] = None; sys.argv = ['{script}', '-m', '{word}']; "
        f"sys.path.insert(0, '{SCRIPTS}'); runpy.run_path('{script}', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert done.stderr == (
        "error: launchers and Optuna must be installed to be chosen; say pip install -e '.[launchers]'\n"
    )
