"""Sweeps by the command line: what is run again, what a failure leaves, and that jobs do not touch each other."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.script_runner import SCRIPTS, TESTS, ScriptProcess, in_a_process
from support.small_runs import without_a_copy

from bptt.lightning.checkpoint_files import best_metric
from bptt.run_folder import RunFolder
from bptt.sweeps.manifest import Manifest, Record, job_state
from bptt.sweeps.names import MAX_LENGTH, folder_name

TINY = (
    "task=adding", "task.length=10", "task.batch_size=2", "task.train_batches=40", "task.validation_batches=2",
    "model=elman", "model.hidden_size=4", "estimator.chunk_size=5", "trainer.enable_progress_bar=false",
    "~callbacks.gradient_flow", "~callbacks.jacobian_spectrum", "~callbacks.parameter_norms",
)  # fmt: skip
TWELVE = (
    "-m", *TINY, "logger=none", "callbacks.checkpoint.every_n_updates=10",
    "+callbacks.fail={_target_:support.sweep_callbacks.Fail,seed:${seed}}", "seed=1,2,3,4,5,6,7,8,9,10,11,12",
    "hydra.sweep.dir=sweep",
)  # fmt: skip
PATHS = {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}


def records(sweep: Path) -> list[Record]:
    return [record for record in Manifest(sweep).records() if record["job"]]


def results(job: Path) -> dict[str, Any]:
    """All of a job that must not depend on how often it was interrupted."""
    summary = json.loads((job / "summary.json").read_text())
    found = {key: summary[key] for key in ("status", "metrics", "counters")}
    for name in ("best", "last"):
        weights = torch.load(job / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
        found |= {f"{name}/{key}": value.tolist() for key, value in weights.items()}
    return found


def test_a_killed_sweep_goes_on_as_if_nobody_had_killed_it(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert in_a_process("train.py", *TWELVE, cwd=whole, **PATHS).returncode == 1

    sweep = killed / "sweep"
    process = ScriptProcess("train.py", *TWELVE, cwd=killed, **PATHS)
    while not (sweep / "seed-5" / "checkpoints" / "previous.ckpt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    before = Manifest(sweep).newest()
    assert [before[f"seed-{seed}"]["state"] for seed in range(1, 5)] == ["completed"] * 4
    assert job_state(sweep / "seed-5", before["seed-5"]) == "interrupted"
    # The configuration of two jobs is empty. One has a copy in its checkpoints, the other counts as interrupted.
    shutil.copytree(sweep / "seed-3", killed / "kept")
    for job in ("seed-2", "seed-3"):
        RunFolder(sweep / job).config.write_text("", encoding="utf-8")
    without_a_copy(RunFolder(sweep / "seed-3"))
    listed = in_a_process("train.py", *TWELVE, "sweep.dry_run=true", "trainer.max_time=null", cwd=killed)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.splitlines()[0] == "sweep: 3 completed, 2 interrupted, 7 missing"
    assert {"interrupted seed-3", "interrupted seed-5"} < set(listed.stdout.splitlines())
    shutil.rmtree(sweep / "seed-3")
    (killed / "kept").rename(sweep / "seed-3")

    again = in_a_process("train.py", *TWELVE, cwd=killed, **PATHS)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1] == "error: 11 completed, 1 failed: seed-7: RuntimeError: nobody foresaw this"

    begun = [record["job"] for record in records(sweep) if record["state"] == "running"]
    assert sorted(begun) == sorted(f"seed-{seed}" for seed in (*range(1, 13), 5)), "none twice but the interrupted one"
    for seed in set(range(1, 13)) - {7}:
        own, same = (folder / "sweep" / f"seed-{seed}" for folder in (killed, whole))
        assert results(own) == results(same)
        assert best_metric(own) == best_metric(same) <= results(own)["metrics"]["validation/loss"]
    assert 'raise RuntimeError("nobody foresaw this")' in (sweep / "seed-7" / "train.log").read_text()
    assert Manifest(sweep).newest()["seed-7"]["error"] == "RuntimeError: nobody foresaw this"

    # All but the failed one are done: only that is run. Another configuration has no place in these folders.
    in_a_process("train.py", *TWELVE, cwd=killed, **PATHS)
    assert [record["job"] for record in records(sweep) if record["state"] == "running"] == [*begun, "seed-7"]
    refused = in_a_process("train.py", *TWELVE, "task.length=11", cwd=killed)
    assert refused.returncode == 1
    expected = (
        f"error: a run must be resumed with its own configuration, got task.length=11 instead of 10 in {sweep}/seed-1"
    )
    assert refused.stderr.startswith(expected)
    assert len(refused.stderr.splitlines()) == 1


def test_a_job_after_another_is_the_same_as_alone(tmp_path: Path) -> None:
    words = (
        *TINY,
        "+callbacks.observe._target_=support.sweep_callbacks.Observe",
        "+callbacks.meddle._target_=support.sweep_callbacks.Meddle",
    )
    several = ("seed=1,2", "hydra.sweep.dir=sweep", "hydra.job.chdir=true")
    swept = in_a_process("train.py", "-m", *words, *several, cwd=tmp_path, **PATHS)
    assert swept.returncode == 0, swept.stderr
    best, compare, counted = swept.stdout.splitlines()[-3:]
    assert counted == "2 completed"
    assert re.fullmatch(r"best     (seed-[12]): validation/loss [\d.]+, in sweep/\1", best)
    assert compare == "compare  python scripts/compare_runs.py sweep"
    folder = "alone[final]/[/b] :smile:"  # rich's markup and emoji codes
    given = ["seed=2", f"hydra.run.dir='{folder}'", "trainer.enable_progress_bar=true"]
    alone = in_a_process("train.py", *words, *given, cwd=tmp_path, **PATHS)
    assert alone.returncode == 0, alone.stderr
    assert f"run folder   {folder}\n" in alone.stdout
    first, after, by_itself = (tmp_path / name for name in ("sweep/seed-1", "sweep/seed-2", folder))
    found = [json.loads((job / "found.json").read_text()) for job in (first, after, by_itself)]
    assert found[0] == found[1] == found[2]
    assert found[0]["event_files"] == 1
    assert results(after) == results(by_itself) != results(first)
    for name in ("config", "overrides"):
        assert yaml.safe_load((after / ".hydra" / f"{name}.yaml").read_text())


def test_a_sweep_outlives_its_output(tmp_path: Path) -> None:
    """Here a full disk, which refuses each line as a pipe does that is closed after `| head -1`."""
    words = ("-m", *TINY, "logger=none", "seed=1,2", "hydra.sweep.dir=sweep")
    process = ScriptProcess("train.py", *words, cwd=tmp_path, stdout="/dev/full")
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert [record["state"] for record in Manifest(tmp_path / "sweep").newest().values()] == ["completed"] * 2


@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-", "| head -1"])
def test_a_sweep_without_its_streams(streams: str, tmp_path: Path) -> None:
    """A stream that is closed from the start is None in Python; a pipe without a reader refuses Hydra's own lines."""
    words = shlex.join([sys.executable, str(SCRIPTS / "train.py"), "-m", *TINY, "logger=none", "seed=1,2"])
    done = subprocess.run(f"{words} hydra.sweep.dir=sweep {streams}", shell=True, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0
    assert done.stderr == b""
    assert [record["state"] for record in Manifest(tmp_path / "sweep").newest().values()] == ["completed"] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_jobs_start_is_answered(number: int, tmp_path: Path) -> None:
    process = ScriptProcess("train.py", "-m", *TINY, "logger=none", "seed=range(1,200)", cwd=tmp_path)
    while not list(tmp_path.glob("outputs/sweeps/*/seed-2/summary.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == 128 + number
    assert re.match(r"error: \d+ completed, .*missing: ", stderr.splitlines()[-1])
    assert "Traceback" not in stderr


def test_a_signal_at_the_end_of_a_job_completes_it_and_stops_the_sweep(tmp_path: Path) -> None:
    signals = "+callbacks.end._target_=support.sweep_callbacks.SignalAtEnd"
    words = ("-m", *TINY, "logger=none", signals, "seed=1,2", "hydra.sweep.dir=sweep")
    done = in_a_process("train.py", *words, cwd=tmp_path, **PATHS)
    assert done.returncode == 128 + signal.SIGTERM
    ending = "error: 1 completed, 1 missing: seed-2; the same command runs what is left"
    assert done.stderr.splitlines() == ["interrupted by SIGTERM", ending]
    assert Manifest(tmp_path / "sweep").newest()["seed-1"]["state"] == "completed"


def test_a_refused_job_leaves_no_folder_and_with_fail_fast_is_the_last(tmp_path: Path) -> None:
    words = ("-m", *TINY, "estimator.chunk_size=0,5", "hydra.sweep.dir=sweep")
    done = in_a_process("train.py", *words, "sweep.fail_fast=true", cwd=tmp_path)
    line = "chunk_size-0: estimator: chunk_size must be an integer >= 1, got 0; use estimator=full for no truncation"
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"failed: {line}", f"error: 1 failed, 1 missing: {line}"]
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["manifest.jsonl", "multirun.yaml"]
    (record,) = records(tmp_path / "sweep")
    assert (record["job"], record["state"]) == ("chunk_size-0", "failed")


def test_a_job_that_would_fail_at_its_first_validation_leaves_no_folder_either(tmp_path: Path) -> None:
    words = ("-m", *TINY, "scheduler=plateau", "scheduler.monitor=null,validation/loss", "hydra.sweep.dir=sweep")
    done = in_a_process("train.py", *words, cwd=tmp_path)
    assert done.returncode == 1
    reason = "scheduler.monitor must be validation/loss or validation/mse, got None"
    assert done.stderr.splitlines()[-1] == f"error: 1 completed, 1 failed: monitor-null: {reason}"
    assert not (tmp_path / "sweep" / "monitor-null").exists()


def test_several_processes_for_a_job_need_a_launcher_that_gives_them(tmp_path: Path) -> None:
    words = ("-m", *TINY, "trainer.devices=2", "trainer.strategy=ddp", "seed=1,2", "hydra.sweep.dir=sweep")
    done = in_a_process("train.py", *words, cwd=tmp_path)
    assert done.returncode == 1
    reason = "trainer.devices must be 1 in a sweep, got 2; use hydra/launcher=slurm"
    assert done.stderr.splitlines()[-1].startswith(f"error: 2 failed: seed-1: {reason}")
    assert [record["state"] for record in records(tmp_path / "sweep")] == ["failed"] * 2
    assert not list((tmp_path / "sweep").glob("seed-*"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-m", "model=gru,grru"), "error: job model=grru: model must be elman or gru or"),
        (("-m", "resume=runs/1"), "error: resume must be auto or left out in a sweep, got 'runs/1'; the same command"),
        (("sweep.dry_run=true",), "error: sweep.dry_run must be False, got True; or say -m, for a sweep"),
        (
            ("+sweep=estimator_task",),
            "error: a sweep's values must be launched together, got +sweep without -m; say -m",
        ),
        (
            ("-m", "seed=range(1,1)"),
            "error: a sweep must be one job or more, got 0; a range or glob in it has no values",
        ),
        (
            ("-m", "+sweep=estimator_task,initialisation_horizon"),
            "error: sweep must be one choice in a command, got 'several'; launch one after the other",
        ),
        (
            ("-m", "experiment=own,adding", "--config-dir", str(Path(__file__).parents[1] / "support" / "own_conf")),
            "error: settings of hydra.launcher must not be among the values of a sweep, got job experiment=own; name",
        ),
        (("-m", "seed=1,2,1"), "error: a sweep must be one of different jobs, got 'seed-1'; give each value once"),
        (
            ("-m", "seed=1,2", "hydra.sweep.subdir=../x${seed}"),
            "error: hydra.sweep.subdir must be a folder inside the sweep's, got '../x1'; leave it out",
        ),
        (
            ("-m", "seed=1,2", "hydra.sweep.subdir=h${model.hidden_size}"),
            "error: hydra.sweep.subdir must be a folder of its own for every job, got 'h192'; it is that of seed=1 and",
        ),
        (
            ("-m", "seed=1,2", "hydra.sweep.subdir=manifest.jsonl"),
            "error: hydra.sweep.subdir must be no file of the sweep, got 'manifest.jsonl'; leave it out",
        ),
        (("-m", "sweep.dry_run=no"), "error: sweep.dry_run must be true or false, got 'no'"),
        (("-m", "sweep.fail_fast=no"), "error: sweep.fail_fast must be true or false, got 'no'"),
    ],
    ids=[
        "a job that does not compose",
        "a sweep that resumes a run",
        "a dry run of no sweep",
        "a sweep of one",
        "no job",
        "two sweeps",
        "a launcher among the values",
        "a job twice",
        "a job outside",
        "two jobs in a folder",
        "a job in a file",
        "a word for false",
        "another",
    ],
)
def test_a_refused_command_leaves_nothing(words: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    done = in_a_process("train.py", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(expected)
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_lists_the_jobs_and_makes_nothing(tmp_path: Path) -> None:
    words = ("-m", "task=adding", "model=gru,lstm", "estimator.chunk_size=8,32", "sweep.dry_run=true")
    done = in_a_process("train.py", *words, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "outputs/sweeps/task-adding_model-gru-lstm_chunk_size-8-32: 4 missing",
        *(f"missing     model-{model}_chunk_size-{size}" for model in ("gru", "lstm") for size in (8, 32)),
    ]
    folder = "hydra.sweep.dir=sweep_of_${hydra.job.name}"
    numbered = in_a_process("train.py", *words, folder, "hydra.sweep.subdir=${hydra:job.num}", cwd=tmp_path)
    assert numbered.stdout.splitlines() == ["sweep_of_train: 4 missing", *(f"missing     {job}" for job in range(4))]
    referring = in_a_process("train.py", *words, "optimizer.lr=${seed}", cwd=tmp_path)
    assert referring.stdout.startswith("outputs/sweeps/task-adding_model-gru-lstm_chunk_size-8-32_lr--seed-")
    assert list(tmp_path.iterdir()) == []


def test_names_are_safe_short_and_no_two_the_same() -> None:
    assert folder_name(["model=gru", "estimator.chunk_size=8", "seed=1"]) == "model-gru_chunk_size-8_seed-1"
    assert folder_name(["model.num_layers=2", "task.num_layers=3"]) == "model.num_layers-2_task.num_layers-3"
    assert folder_name(["+sweep=chunk_size_model_copy", "sweep.dry_run=true"]) == "sweep-chunk_size_model_copy"
    assert folder_name([]) == "defaults"
    others = [f"task.path={path}" for path in ("a/b", "a=b", "a b", "'a,b'", "ä", "[a,b]", "x" * 300, "x" * 301)]
    names = [folder_name([word]) for word in others]
    assert len(set(names)) == len(others)
    for name in names:
        assert len(name) <= MAX_LENGTH
        assert name.isascii()
        assert not set(name) & set("=/ ,'[]")


def test_what_a_killed_process_left_of_a_line_is_passed_over(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    assert manifest.newest() == {}
    manifest.add("one", state="completed")
    content = manifest.path.read_bytes()
    for length in range(1, len(content)):
        manifest.path.write_bytes(content + content[:-length])
        manifest.add("two", state="failed")
        assert {job: record["state"] for job, record in manifest.newest().items()} == {
            "one": "completed",
            "two": "failed",
        }


def test_a_study_without_a_trial_that_completes(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ("-m", *TINY, "sweeper=optuna", "hydra.sweeper.n_trials=1", "optimizer.lr=interval(1e37,1e38)")
    done = in_a_process("train.py", *words, "estimator.chunk_size=1", cwd=tmp_path)
    assert done.returncode == 1
    line = "error: a study must have a trial that completes, got none; see the errors of its jobs, of which the same"
    assert done.stderr.splitlines()[-1] == f"{line} command resumes interrupted ones"
    assert "failed: " in done.stderr


@pytest.mark.parametrize("word", ["trainer.limit_val_batches=0", "~callbacks.checkpoint"])
def test_a_study_whose_trials_have_no_value(word: str, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ("-m", *TINY, "sweeper=optuna", "hydra.sweeper.n_trials=1", "optimizer.lr=interval(.01,.02)", word)
    done = in_a_process("train.py", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert "a trial of Optuna must validate and have callbacks.checkpoint, got no value to optimise" in done.stderr


def test_the_basic_sweeper_says_what_is_finished(tmp_path: Path) -> None:
    words = ("-m", *TINY, "sweeper=basic", "seed=1,2", "hydra.sweep.dir=sweep")
    assert in_a_process("train.py", *words, cwd=tmp_path).returncode == 0
    done = in_a_process("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0
    assert len(re.findall("finished before: ", done.stdout)) == 2


def test_an_error_in_own_code_names_its_line(tmp_path: Path) -> None:
    """A callback that raises ValueError itself, and one that asks torch for what it cannot do."""
    for name, text in (("Text", "could not convert string to float"), ("Several", "only one element tensors")):
        words = (*TINY, f"+callbacks.fail._target_=support.sweep_callbacks.{name}", "hydra.run.dir=" + name)
        done = in_a_process("train.py", *words, cwd=tmp_path, **PATHS)
        assert done.returncode == 1
        line = done.stderr.splitlines()[-1]
        assert re.search(rf"^error: {text}.*; raised in .*sweep_callbacks\.py:\d+, see BPTT_TRACEBACK=1$", line), line


def test_own_code_that_leaves_the_program_is_a_failure(tmp_path: Path) -> None:
    """Its exit code 0 would be that of success, and a sweep would not go on."""
    own = "+callbacks.leave={_target_:support.sweep_callbacks.Leave,seed:${seed}}"
    done = in_a_process("train.py", *TINY, own, "seed=1", "hydra.run.dir=run", cwd=tmp_path, **PATHS)
    assert done.returncode == 1
    message = r"training must end by itself, got sys\.exit\(0\) in .*sweep_callbacks\.py:\d+; raise an error, or"
    assert re.search(f"^error: {message}", done.stderr.splitlines()[-1])
    assert RunFolder(tmp_path / "run").status == "failed"
    done = in_a_process("train.py", "-m", *TINY, own, "seed=1,2", "hydra.sweep.dir=sweep", cwd=tmp_path, **PATHS)
    assert done.returncode == 1
    states = {job: record["state"] for job, record in Manifest(tmp_path / "sweep").newest().items()}
    assert states == {"seed-1": "failed", "seed-2": "completed"}
    words = ("task._target_=support.sweep_callbacks.LeavingTask", "hydra.run.dir=early")
    done = in_a_process("train.py", *TINY, *words, cwd=tmp_path, **PATHS)
    assert done.returncode == 1, "before training, too"
    assert re.search(f"^error: {message}", done.stderr.splitlines()[-1])
