"""Runs side by side: what is read of their folders, how they are grouped, and what is written."""

import base64
import csv
import html
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from omegaconf import OmegaConf
from support.script_runner import ScriptProcess, in_a_new_interpreter, in_a_process, program, refusal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from bptt import figures
from bptt.configuration.compose import SCRIPTS, compose_config
from bptt.configuration.containers import resolved
from bptt.configuration.flat_settings import flat_settings, hyperparameters
from bptt.contracts import plain_name
from bptt.lightning.loggers import CSVLogger
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.comparison import run_table, table, with_spread
from bptt.runs.groups import Group, chosen_keys, differing, grouped, outcome
from bptt.runs.other_data import of_other_data
from bptt.runs.panels import at_common_lags, gradients_by_lag, last_curve, learning_curve, panels
from bptt.runs.reading import Run, event_scalars, find_runs, read_curves, read_run
from bptt.sweeps.manifest import Manifest
from bptt.tensorboard_tab.history import CurveHistory

PNG = b"\x89PNG\r\n\x1a\n"
LOSS = "validation/loss"
ANY = re.compile(".*")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny runs by the command line: 0, a GRU, and 1, an Elman network."""
    folder = tmp_path_factory.mktemp("trained")
    shared = (
        "task=copy_memory", "task.delay=10", "task.batch_size=2", "task.train_batches=8", "task.validation_batches=1",
        "model.hidden_size=4", "callbacks=bias", "callbacks.truncation_bias.every_n_batches=4",
        "trainer.val_check_interval=0.5", "~callbacks.jacobian_spectrum", "~callbacks.parameter_norms",
        "callbacks.gradient_flow.lags=[1,2,5]", f"hydra.sweep.dir={folder / 'sweep'}",
        "hydra.sweep.subdir='${hydra:job.num}'",
    )  # fmt: skip
    done = in_a_process("train.py", "-m", *shared, "model=gru,elman", "estimator.chunk_size=10", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def planted(origin: Path, folder: Path, config: dict[str, Any] | None = None, *, seed: int = 1, **summary: Any) -> Path:
    """A copy of a run, as if it had been another: with some keys of its configuration and of its summary changed."""
    shutil.copytree(origin, folder, ignore=shutil.ignore_patterns("checkpoints", "*.png"))
    path = folder / ".hydra" / "config.yaml"
    changed = OmegaConf.load(path)
    for key, value in {"seed": seed, **(config or {})}.items():
        OmegaConf.update(changed, key, value)
    OmegaConf.save(changed, path)
    content = json.loads((folder / "summary.json").read_text())
    if "loss" in summary:
        content["metrics"][LOSS] = summary.pop("loss")
    (folder / "summary.json").write_text(json.dumps(content | summary))
    return folder


def compare(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_runs.py", *words])
    compare_runs = program("compare_runs")
    compare_runs.run_script(compare_runs.main, compare_runs.__doc__)


def table_of(text: str) -> list[dict[str, str]]:
    """The table on the screen, by its header: cells are two spaces apart."""
    head, *lines = text.split("\n\n")[0].splitlines()
    starts = [found.start() for found in re.finditer(r"(?<!\S)\S+( \S+)*", head)]
    ends = [*starts[1:], None]
    return [{head[a:b].strip(): line[a:b].strip() for a, b in zip(starts, ends)} for line in lines]


SCORES = {("gru", 8): (0.1, 0.2, 0.3), ("gru", 16): (0.5, 0.5, 0.8), ("elman", 8): (0.7, 0.9, 1.1)}


@pytest.fixture
def study(sweep: Path, root: Path) -> Path:
    """Two models, chunk sizes 8 and 16, three seeds; in two folders."""
    for (model, size), scores in SCORES.items():
        for seed, score in enumerate(scores):
            name = root / ("first" if model == "gru" else "second") / f"{model}_{size}_{seed}"
            planted(
                sweep / ("0" if model == "gru" else "1"), name, {"estimator.chunk_size": size}, seed=seed, loss=score
            )
    return root


def test_table(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Grouped by model and chunk size; 0.1, 0.2, 0.3 have mean 0.2 and standard deviation 0.1."""
    compare(monkeypatch, str(study))
    printed = capsys.readouterr()
    assert printed.err == ""
    rows = table_of(printed.out)
    assert [(row["model"], row["chunk_size"], row[LOSS], row["runs"]) for row in rows] == [
        ("gru", "8", "0.20 ± 0.10", "3"),
        ("gru", "16", "0.60 ± 0.17", "3"),
        ("elman", "8", "0.90 ± 0.20", "3"),
    ]
    assert set(rows[0]) == {"model", "chunk_size", LOSS, "runs", "horizon", "seconds"}
    assert all(float(row["horizon"]) >= 1 and float(row["seconds"]) > 0 for row in rows)
    written = {study / f"comparison.{end}" for end in ("md", "csv", "html", "png")}
    assert {Path(line) for line in printed.out.splitlines()[-4:]} == written == set(study.glob("comparison.*"))


def test_more_is_better(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    compare(monkeypatch, str(study), "mode=max", "metric=validation/recall", f"out={study / 'new' / 'out'}")
    rows = table_of(capsys.readouterr().out)
    means = [float(row["validation/recall"].split()[0]) for row in rows]
    assert means == sorted(means, reverse=True)
    assert (study / "new" / "out" / "comparison.png").read_bytes()[:8] == PNG
    assert not list(study.glob("comparison.*"))


def test_grouped_by_hand(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Several folders, the second one twice, and one key."""
    compare(monkeypatch, str(study / "first"), str(study / "second"), str(study / "second" / "elman_8_0"), "by=model")
    rows = table_of(capsys.readouterr().out)
    gru = SCORES["gru", 8] + SCORES["gru", 16]
    assert [(row["model"], row["runs"]) for row in rows] == [("gru", "6"), ("elman", "3")]
    assert rows[0][LOSS] == f"{statistics.mean(gru):.2f} ± {statistics.stdev(gru):.2f}"


def test_runs_that_were_not_validated_yet(
    sweep: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(sweep / "0", root / "early", status="interrupted", metrics={"train/loss": 1.0})
    compare(monkeypatch, str(root))
    assert "1 interrupted" in capsys.readouterr().out


def test_a_job_whose_folder_is_gone_is_named(
    sweep: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = root / "sweeps" / "inner"
    planted(sweep / "0", inner / "seed-1")
    states = {"seed-1": "completed", "deep/seed-2": "running", "refused": "failed", "skipped": "missing"}
    for job, state in states.items():
        Manifest(inner).add(job, state=state)
    compare(monkeypatch, str(root))
    lost = inner / "deep" / "seed-2"
    assert capsys.readouterr().err == f"skipped {lost}: the sweep says running, but the folder is missing\n"


def test_a_record_of_a_sweep_that_is_a_pipe(
    sweep: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(sweep / "0", root / "a")
    os.mkfifo(Manifest(root).path)
    compare(monkeypatch, str(root))
    assert capsys.readouterr().err == ""


def test_files_are_written_although_nobody_reads_the_output(study: Path, tmp_path: Path) -> None:
    """What a full disk loses is an error, but it comes last."""
    process = ScriptProcess("compare_runs.py", str(study), f"out={tmp_path / 'page'}", cwd=tmp_path, stdout="/dev/full")
    assert process.communicate()[1] == "error: [Errno 28] No space left on device: 'standard output'\n"
    assert process.returncode == 1
    assert (tmp_path / "page" / "comparison.html").is_file()


@pytest.mark.parametrize(
    "command", ["compare_runs.py --help", "train.py --help", "train.py --cfg job", "train.py -m sweep.dry_run=true"]
)
def test_a_page_that_nobody_reads_and_a_page_that_is_lost(command: str, tmp_path: Path) -> None:
    words = f"{shlex.quote(sys.executable)} {SCRIPTS}/{command}"
    for output, code in (("| true", 0), (">/dev/full", 1)):
        shell = ["bash", "-o", "pipefail", "-c", f"{words} {output}"]
        done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code
        assert done.stderr.count("\n") == code


def test_files(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(study / "first" / "gru_8_0" / "summary.json", study / "first" / "gru_16_1" / "gradient_flow.png")
    odd, error = study / "a|b\nc", "OSError: <b>full</b>"
    failed = planted(study / "first" / "gru_8_0", odd, seed=7, status="failed", error=error)
    compare(monkeypatch, str(study))
    with (study / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    kept = {(row["model"], int(row["chunk_size"]), int(row["seed"])): row for row in rows}
    for (model, size), scores in SCORES.items():
        for seed, score in enumerate(scores):
            row = kept[model, size, seed]
            assert float(row[LOSS]) == score
            assert row["outcome"] == "completed"
            assert (Path(row["folder"]) / "summary.json").is_file()
    assert kept["gru", 8, 7]["folder"] == str(failed)

    text = (study / "comparison.md").read_text()
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(each) for each in tables] == [2 + 3, 2 + 10]
    for each in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in each}) == 1
    assert "| gru   | 8          | 0.20 ± 0.10† " in text
    assert "![validation/loss of 10 runs](comparison.png)" in text

    page = (study / "comparison.html").read_text()
    (picture,) = re.findall(r'src="([^"]*)"', page)
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")) == (study / "comparison.png").read_bytes()
    assert (study / "comparison.png").read_bytes()[:8] == PNG
    assert not re.search(r"https?:|@import|url\(|<script|<link", page)
    drawn = study / "first" / "gru_16_1"
    assert re.findall(r'href="([^"]*)"', page) == [f"first/{drawn.name}/gradient_flow.png"], "of the run that has one"
    assert "<b>full" not in page
    assert "<b>full</b>" in html.unescape(page)
    assert page.count("<tr>") == 1 + 3 + 1 + 10


def test_runs_that_did_not_complete_are_shown_and_not_counted(
    sweep: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gru, elman = sweep / "0", sweep / "1"
    for seed, loss in enumerate((0.4, 0.6)):
        planted(gru, root / f"good{seed}", seed=seed, loss=loss)
    planted(gru, root / "diverged", seed=2, loss=None)
    planted(gru, root / "stopped", seed=6, loss=0.5, status="diverged", error="DivergenceError: NaN")
    planted(gru, root / "running", seed=3, loss=0.05, status="running")
    planted(gru, root / "failed", seed=4, loss=9.0, status="failed", error="RuntimeError: no")
    planted(gru, root / "interrupted", seed=5, loss=0.07, status="interrupted")
    planted(gru, root / "killed", seed=7, loss=0.09, status="running")  # by nobody
    planted(elman, root / "begun", seed=1, metrics={}, status="running")
    with RunFolder(root / "running").locked(), RunFolder(root / "begun").locked():
        compare(monkeypatch, str(root))
    printed = capsys.readouterr()
    assert printed.err == ""
    first, last = table_of(printed.out)
    assert (first["model"], first[LOSS], first["runs"]) == ("gru", "0.50 ± 0.14†", "2")
    assert first["not counted"] == "2 diverged, 1 failed, 2 interrupted (0.07, 0.09 so far), 1 running (0.05 so far)"
    assert (last["model"], last[LOSS], last["runs"], last["not counted"]) == ("elman", "–†", "0", "1 running")
    assert "†" in printed.out.split("\n\n")[1]
    with (root / "comparison.csv").open(newline="") as file:
        outcomes = {Path(row["folder"]).name: (row["outcome"], row["error"]) for row in csv.DictReader(file)}
    assert outcomes["diverged"] == ("diverged", "")
    assert outcomes["stopped"] == ("diverged", "DivergenceError: NaN")
    assert outcomes["failed"] == ("failed", "RuntimeError: no")


def test_a_run_counts_once(
    sweep: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy of a run, or the same configuration and seed in another sweep, is no further draw."""
    for name, seed, loss in (("a", 1, 0.4), ("b", 2, 0.6), ("copy", 1, 0.4), ("again", 2, 0.6)):
        planted(sweep / "0", root / name, seed=seed, loss=loss)
    compare(monkeypatch, str(root))
    (line,) = table_of(capsys.readouterr().out)
    assert (line[LOSS], line["runs"], line["not counted"]) == ("0.50 ± 0.14†", "2", "2 repeated")


BROKEN = {
    "no_summary": "it has no summary.json",
    "torn_summary": "summary.json cannot be read",
    "empty_summary": "summary.json has no status and metrics",
    "no_config": "which holds no .hydra/config.yaml",
    "torn_config": ".hydra/config.yaml cannot be read",
    "unresolved_config": ".hydra/config.yaml cannot be read",
}


def test_broken_runs_are_named_and_left_out(
    sweep: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {name: planted(sweep / "0", root / name) for name in ("good", *BROKEN)}
    (folders["no_summary"] / "summary.json").unlink()
    (folders["torn_summary"] / "summary.json").write_text('{"status": "comp')
    (folders["empty_summary"] / "summary.json").write_text("[]")
    (folders["no_config"] / ".hydra" / "config.yaml").unlink()
    (folders["torn_config"] / ".hydra" / "config.yaml").write_text("task:\n  a: [1, 2\nmodel")
    (folders["unresolved_config"] / ".hydra" / "config.yaml").write_text("task: ${nowhere.at.all}\n")
    folders["odd_events"] = folders["good"] / "events.out.tfevents.0"
    folders["odd_events"].mkdir()
    compare(monkeypatch, str(root))
    printed = capsys.readouterr()
    assert [row["runs"] for row in table_of(printed.out)] == ["1"]
    lines = printed.err.splitlines()
    skipped = BROKEN | {"odd_events": "it is no regular file"}
    assert len(lines) == len(skipped)
    for name, reason in skipped.items():
        (line,) = (line for line in lines if line.startswith(f"skipped {folders[name]}: "))
        assert reason in line


REFUSED = [
    ("", "FOLDER must hold runs, got no folder; say for example outputs"),
    ("{root}/nosuch", "FOLDER must be a folder with runs in it, got '{root}/nosuch'; no such folder exists"),
    ("{root}/runs metrik=train/loss", "got 'metrik=train/loss'"),
    ("{root}/empty", "FOLDER must hold runs, got {root}/empty; say for example outputs"),
    ("{root}/runs/run/summary.json", "FOLDER must be a folder with runs in it"),
    ("{root}/runs mode=least", "mode must be min or max, got 'least'"),
    ("{root}/runs metric=loss", "metric must be train/loss or validation/loss"),
    (
        "{root}/runs by=modell",
        "by must be a key of the runs' configurations, got 'modell'; they differ in the seed alone",
    ),
    ("{root}/runs by=", "by must be a key"),
    ("{root}/runs by=batch_sice,model", "by must be a key"),
    ("{root}/runs out={root}/runs/run/summary.json", "summary.json"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_bad_input_is_refused_in_one_line(
    words: str, message: str, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(sweep / "0", tmp_path / "runs" / "run")
    (tmp_path / "empty").mkdir()
    line = refusal(monkeypatch, "compare_runs.py", *words.format(root=tmp_path).split())
    assert line.startswith("error: ")
    assert len(line.splitlines()) == 1
    assert message.format(root=tmp_path) in line
    assert not list(tmp_path.rglob("comparison.*"))


def test_without_curves_there_is_a_table_and_no_wait_for_torch(sweep: Path, root: Path) -> None:
    for event_file in planted(sweep / "0", root / "run").glob("events.*"):
        event_file.unlink()
    (root / "comparison.png").write_bytes(PNG)  # of a comparison when there were curves
    done = in_a_new_interpreter("compare_runs.py", str(root), cwd=root, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    (row,) = table_of(done.stdout)
    assert float(row[LOSS]) > 0
    assert sorted(path.suffix for path in root.glob("comparison.*")) == [".csv", ".html", ".md"]
    assert "<img" not in (root / "comparison.html").read_text()
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "bptt.configuration" in imported
    assert not imported & {"torch", "lightning", "matplotlib"}


# What is read.


def test_scalars_are_those_that_tensorboard_reads(sweep: Path) -> None:
    oracle = EventAccumulator(str(sweep / "0"), size_guidance={"scalars": 0}).Reload()
    truth = {tag: {point.step: point.value for point in oracle.Scalars(tag)} for tag in oracle.Tags()["scalars"]}
    assert {LOSS, "gradient_flow/layer1/horizon", "truncation_bias/relative"} <= truth.keys()
    assert read_curves(sweep / "0", wanted=ANY) == truth
    assert len(truth[LOSS]) == 2
    named = read_curves(sweep / "0", wanted=re.compile(LOSS))
    assert named == {LOSS: truth[LOSS]}


def test_a_torn_event_file_is_read_up_to_the_tear(sweep: Path, tmp_path: Path) -> None:
    (path,) = (sweep / "0").glob("events.*")
    content, whole = path.read_bytes(), list(event_scalars(path))
    torn = tmp_path / "events.out.tfevents.torn"
    counts = []
    for size in range(0, len(content), max(1, len(content) // 150)):
        torn.write_bytes(content[:size])
        part = list(event_scalars(torn))
        assert part == whole[: len(part)]
        counts.append(len(part))
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert len(whole) - 10 < counts[-1]
    torn.write_bytes(content[: len(content) // 2] + b"\xff" * 500)
    assert list(event_scalars(torn)) == whole[: len(list(event_scalars(torn)))]


def test_a_resumed_run_discards_points_beyond_its_checkpoint(tmp_path: Path) -> None:
    """Points are discarded as in TensorBoard, by the event that a writer with `purge_step` adds."""
    for part, (purge, values) in enumerate([(None, {10: 3.0, 20: 2.0, 30: 9.0}), (25, {35: 1.0})]):
        writer = SummaryWriter(str(tmp_path / "new"), purge_step=purge)
        for step, value in values.items():
            writer.add_scalar(LOSS, value, step)
        writer.close()
        (path,) = (tmp_path / "new").iterdir()
        path.rename(tmp_path / f"events.out.tfevents.{part}")
    assert read_curves(tmp_path, wanted=ANY) == {LOSS: {10: 3.0, 20: 2.0, 35: 1.0}}


def test_curves_of_the_csv_logger(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"train/loss": 2.0, LOSS: 3.0}, step=10)
    logger.log_metrics({"train/loss": 1.5}, step=20)
    logger.log_metrics({LOSS: float("nan")}, step=30)
    assert read_curves(tmp_path, wanted=ANY) == {"train/loss": {10: 2.0, 20: 1.5}, LOSS: {10: 3.0}}
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4")
    assert read_curves(tmp_path, wanted=ANY) == {"train/loss": {10: 2.0, 20: 1.5}, LOSS: {10: 3.0}}


def test_runs_are_found_at_any_depth_once_and_in_order(tmp_path: Path) -> None:
    for name in ("sweep/10", "sweep/2", "deep/er/still"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / ".hydra").mkdir(parents=True)  # a folder inside a run folder is not a run
    (tmp_path / "sweep" / "multirun.yaml").touch()
    names = [str(path.relative_to(tmp_path)) for path in find_runs([tmp_path, tmp_path / "sweep", tmp_path])]
    assert names == ["deep/er/still", "sweep/2", "sweep/10"]
    assert find_runs([tmp_path / "sweep" / "2"]) == [tmp_path / "sweep" / "2"]


def test_a_run_as_it_is_read(sweep: Path) -> None:
    run = read_run(sweep / "1", metric=LOSS)
    summary = json.loads((sweep / "1" / "summary.json").read_text())
    assert run.metrics == summary["metrics"]
    assert run.wall_seconds == summary["wall_seconds"]
    assert (run.status, run.seed, run.error) == ("completed", 1, None)
    assert (run.settings["model"], run.settings["task"], run.settings["task.delay"]) == ("elman", "copy_memory", 10)
    assert outcome(run, LOSS) == "completed"
    assert outcome(run, "validation/other") == "without validation/other"


# Choices and groups.


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("bptt.layers.LSTM", "lstm"),
        ("bptt.estimators.SnAp", "snap"),
        ("bptt.estimators.RTRL", "rtrl"),
        ("bptt.tasks.influence_balancing.InfluenceBalancing", "influence_balancing"),
        ("torch.optim.RMSprop", "rmsprop"),
        ("bptt.layers.initialise.forget_bias", "forget_bias"),
    ],
)
def test_names_are_those_that_users_type(target: str, name: str) -> None:
    assert plain_name(target) == name


def composed(*overrides: str) -> dict[str, Any]:
    return resolved(compose_config(overrides))


def test_choices_of_a_configuration() -> None:
    found = flat_settings(composed("model=irnn", "task=adding", "estimator=uoro", "seed=5"))
    expected = {
        "model": "elman", "model.layer.nonlinearity": "relu", "initialisation": "identity", "task": "adding",
        "task.seed": 5, "estimator": "uoro", "scheduler": "constant", "optimizer": "adam", "seed": 5,
    }  # fmt: skip
    assert expected.items() <= found.items()
    assert not [key for key in found if "_target_" in key or "_partial_" in key]
    assert [key for key in found if key.startswith("callbacks")] == [
        "callbacks.divergence",
        "callbacks.divergence.action",
    ]
    assert flat_settings(composed("task.fractions=[0.8,0.1,0.1]"))["task.fractions"] == "[0.8, 0.1, 0.1]"


def test_hyperparameters_are_plain() -> None:
    found = hyperparameters(composed("task=adding", "estimator=randomized", "seed=5"))
    assert (found["task"], found["estimator"], found["optimizer.lr"], found["seed"]) == (
        "adding",
        "randomized",
        0.004,
        5,
    )
    assert all(isinstance(value, bool | int | float | str) for value in found.values())
    assert not [key for key in found if key.startswith(("trainer", "callbacks")) or key.endswith(".seed")]


def run_of(*overrides: str, loss: float = 1.0, curves: Mapping[str, dict[int, float]] | None = None) -> Run:
    name = Path("_".join(overrides))
    return Run(name, flat_settings(composed(*overrides)), RunStatus.COMPLETED, {LOSS: loss}, curves={**(curves or {})})


@pytest.mark.parametrize(
    ("commands", "keys"),
    [
        (["seed=1", "seed=2"], []),
        (["task=adding seed=1", "task=adding seed=2"], []),  # the task's seed follows
        (["task=adding task.seed=3", "task=adding task.seed=4"], ["task.seed"]),
        (["model=lstm", "model=elman", "model=gru"], ["model"]),  # the nonlinearity comes with the model
        (["model=elman", "model=elman model.layer.nonlinearity=relu"], ["model.layer.nonlinearity"]),
        (
            ["estimator.chunk_size=8", "estimator.chunk_size=16", "estimator=full"],
            ["estimator", "estimator.chunk_size"],
        ),
        (["model=lstm model.hidden_size=8", "model=gru model.hidden_size=9"], ["model", "model.hidden_size"]),
        (["callbacks=default", "callbacks=bias logger=none trainer.enable_progress_bar=false"], []),
        (["callbacks=default", "callbacks=early_stopping"], ["callbacks.early_stopping"]),
        (
            [f"callbacks=early_stopping callbacks.early_stopping.patience={number}" for number in (1, 2)],
            ["callbacks.early_stopping.patience"],
        ),
        (["seed=1", "seed=1 callbacks.divergence.action=skip"], ["callbacks.divergence.action"]),
        (["trainer.limit_train_batches=1", "trainer.limit_train_batches=1.0"], ["trainer.limit_train_batches"]),
        ([f"trainer.limit_train_batches=.1234567{digit}" for digit in (1, 8)], ["trainer.limit_train_batches"]),
    ],
    ids=" / ".join,
)
def test_keys_that_differ(commands: list[str], keys: list[str]) -> None:
    runs = [run_of(*command.split()) for command in commands]
    assert differing(runs) == keys
    assert len(grouped(runs, differing(runs), metric=LOSS)) == len(
        {tuple(r.settings.get(k) for k in keys) for r in runs}
    )


@pytest.mark.parametrize(
    ("commands", "keys"),
    [
        (["task.path=one.csv", "task.path=other.csv task.batch_size=4"], ["task.path"]),
        (["task.horizon=1", "task.horizon=24"], ["task.horizon"]),
        (["task.batch_size=4", "task.batch_size=8 model.hidden_size=9"], []),
        (["task.horizon=1", "task=adding"], []),  # sorted within each task
        (["task.horizon=1", "task.horizon=24", "task=adding"], ["task.horizon"]),
    ],
    ids=" / ".join,
)
def test_scores_of_other_data(commands: list[str], keys: list[str]) -> None:
    """A setting that is called like a measured column keeps its whole name."""
    runs = [run_of("task=series", *command.split()) for command in commands]
    assert of_other_data(runs) == keys
    header, *_ = table(grouped(runs, differing(runs), metric=LOSS), metric=LOSS)
    assert len(set(header)) == len(header)
    assert ("task.horizon" in header) == ("task.horizon" in differing(runs))


def test_scores_of_other_data_are_called_so(
    sweep: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for length in (10, 20):
        planted(sweep / "0", root / str(length), {"task.delay": length})
    compare(monkeypatch, str(root))
    note = "Scores may be of different data, since the runs differ in task.delay."
    assert note in capsys.readouterr().out
    assert note in (root / "comparison.md").read_text(encoding="utf-8")


def test_scores_of_data_that_have_changed_are_called_so() -> None:
    """A sweep trains what is left on the file as it is then. Runs with other inputs read other columns of the same."""
    first, second = (run_of("task=series")._replace(data=each) for each in ("checksum 1", "checksum 2"))
    assert of_other_data([first, first._replace(folder=Path("b")), second]) == ["the contents of task.path"]
    assert of_other_data([first, first, second._replace(data="")]) == []  # of an earlier version
    narrow = run_of("task=series", "task.inputs=[a]")._replace(data="checksum 3")
    assert of_other_data([first, narrow]) == []


def test_a_line_that_averages_over_tasks_is_called_so(
    sweep: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in ("bptt.tasks.adding.Adding", "bptt.tasks.copy_memory.CopyMemory"):
        planted(sweep / "0", root / task, {"task._target_": task})
    note = "A line averages over different tasks, since by= leaves out task."
    compare(monkeypatch, str(root), "by=model")
    assert note in capsys.readouterr().out
    compare(monkeypatch, str(root))
    assert note not in capsys.readouterr().out


def test_runs_with_a_chunk_size_that_is_no_number_are_drawn() -> None:
    runs = [run_of(f"estimator.chunk_size={size}", curves={LOSS: {1: 1.0}}) for size in (8, 4, "null", "auto")]
    groups = grouped(runs, ["estimator.chunk_size"], metric=LOSS)
    curves = next(panel.curves for panel in panels(groups, metric=LOSS) if any("chunk" in key for key in panel.curves))
    assert list(curves) == ["chunk size 4", "chunk size 8", "chunk size None", "chunk size auto"]


def test_a_class_of_ones_own_has_the_name_of_its_package() -> None:
    config = composed("task=adding")
    config["model"]["layer"]["_target_"] = "mine.cells.LSTM"
    assert flat_settings(config)["model"] == "mine.lstm"


def test_a_column_for_each_setting_that_is_called_seed() -> None:
    runs = [run_of("task=adding", f"task.seed={seed}") for seed in (1, 2)]
    header, *_ = run_table(grouped(runs, ["task.seed"], metric=LOSS), metric=LOSS)
    assert header[:2] == ["task.seed", "seed"]


def test_keys_by_hand() -> None:
    runs = [run_of("task=adding"), run_of("task=adding", "estimator=randomized")]
    assert chosen_keys("model,lr,task.seed", runs) == ["model", "optimizer.lr", "task.seed"]
    assert chosen_keys("seed", runs) == ["seed"]
    with pytest.raises(ValueError, match=r"by must be one of task\.max, clipping\.max, got 'max'"):
        chosen_keys("max", [run_of("+task.max=3")])


def test_the_best_comes_first_within_each_task() -> None:
    words = {("adding", "gru"): 0.2, ("copy_memory", "gru"): 0.3, ("adding", "lstm"): 0.1, ("copy_memory", "lstm"): 0.4}
    runs = [
        run_of(f"task={task}", f"model={model}", loss=loss, curves={LOSS: {1: loss}})
        for (task, model), loss in words.items()
    ]
    groups = grouped(runs, ["task", "model"], metric=LOSS)
    assert [group.mean for group in groups] == [0.1, 0.2, 0.3, 0.4]
    backwards = grouped(runs, ["task", "model"], metric=LOSS, mode="max")
    assert [group.mean for group in backwards] == [0.2, 0.1, 0.4, 0.3]
    assert [panel.title for panel in panels(groups, metric=LOSS)] == ["adding", "copy_memory"]


@pytest.mark.parametrize(
    ("mean", "deviation", "shown"),
    [
        (0.23712, 0.01234, "0.237 ± 0.012"),
        (123.456, 9.87, "123.5 ± 9.9"),
        (1234.5, 120.0, "1234 ± 1.2e+02"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.123456, None, "0.1235"),
        (None, None, "–"),
    ],
)
def test_digits_follow_the_spread(mean: float | None, deviation: float | None, shown: str) -> None:
    assert with_spread(mean, deviation) == shown


# The picture.


def test_whole_curves_by_lag_with_their_spread(sweep: Path) -> None:
    """From the run folder: at every lag of the last look, mean and deviation over runs."""
    looks = CurveHistory.load(RunFolder(sweep / "0").curves("gradient_flow"), until=10**9).looks["layer1/h/by_lag"]
    newest = looks[max(looks)]
    runs = [read_run(sweep / "0", metric=LOSS)] * 2
    (panel,) = gradients_by_lag(grouped(runs, [], metric=LOSS))
    (curve,) = panel.curves.values()
    assert list(curve) == newest.places[1:].tolist()
    assert [mean for mean, _ in curve.values()] == pytest.approx(newest.columns["median"][1:])
    assert {deviation for _, deviation in curve.values()} == {0.0}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rubbish", None], ids=["empty", "rubbish", "a flipped byte"])
def test_a_damaged_file_of_curves(content: bytes | None, sweep: Path, root: Path) -> None:
    """numpy and zipfile raise exceptions of many types; the other runs are compared all the same."""
    for name in ("a", "b"):
        planted(sweep / "0", root / name)
    path = RunFolder(root / "a").curves("gradient_flow")
    if content is None:
        content = path.read_bytes().replace(
            b"PK\x01\x02\x2d\x03\x2d\x00\x00\x00\x00\x00", b"PK\x01\x02\x2d\x03\x2d\x00\x00\x00\x63\x00"
        )
    path.write_bytes(content)
    for name, found in (("a", False), ("b", True)):
        assert bool(last_curve(read_run(root / name, metric=LOSS), 1)) == found


def test_curves_of_other_places_meet() -> None:
    found = at_common_lags([{1: 1.0, 3: 3.0, 9: 0.0}, {}, {2: 5.0, 4: 7.0}])
    assert found == [{2: 2.0, 3: 3.0, 4: 2.5}, {2: 5.0, 3: 6.0, 4: 7.0}]


def test_panels_show_the_numbers() -> None:
    """Two models, two chunk sizes and full BPTT; two seeds with shared steps, one of them with further steps."""
    lag = {f"gradient_flow/layer1/lag_{k}": {5: 1.0 / k, 10: 2.0 / k} for k in (1, 10)}
    early = {"gradient_flow/layer1/lag_50": {5: 7.0}}  # when last looked at, the gradient did not reach it
    runs = []
    for model, words in (("gru", "model=gru"), ("lstm", "model=lstm")):
        for seed in (1, 2):
            for size, share in ((8, 0.5), (16, 0.25)):
                curves = {
                    LOSS: {10: 1.0 + seed, 20: 0.5 * seed, **({30: 9.0} if seed == 2 else {})},
                    "truncation_bias/relative": {0: 1.0, 10: share * seed},
                    "gradient_flow/layer1/horizon": {5: 3.0, 10: 10.0 * seed},
                    **lag,
                    **early,
                }
                final = size / 100 + seed / 10 + (model == "lstm")
                runs.append(run_of(words, f"seed={seed}", f"estimator.chunk_size={size}", loss=final, curves=curves))
        runs.append(run_of(words, "estimator=full", loss=0.1))
    groups = grouped(runs, differing(runs), metric=LOSS)
    score, bias, gradient, *learning = panels(groups, metric=LOSS)

    spread = statistics.stdev((1.0, 2.0)) / 10
    assert_curve(score.curves["gru, chunked"], {8: (0.23, spread), 16: (0.31, spread)})
    assert_curve(score.curves["lstm, chunked"], {8: (1.23, spread), 16: (1.31, spread)})
    single = [number for point in sorted(score.points["gru, chunked"]) for number in point]
    assert single == pytest.approx([8, 0.18, 8, 0.28, 16, 0.26, 16, 0.36])
    assert len({panel.share_y for panel in learning}) == 1
    assert all(panel.ordered for panel in learning)
    assert score.levels == {"gru, full": 0.1, "lstm, full": 0.1}
    spread = statistics.stdev((1.0, 2.0))
    assert_curve(bias.curves["gru, chunked"], {8: (0.75, 0.5 * spread), 16: (0.375, 0.25 * spread)})
    assert gradient.curves["gru, chunked, chunk_size 8"] == {1: (2.0, 0.0), 10: (0.2, 0.0)}
    assert gradient.marks["gru, chunked, chunk_size 8"] == 15.0
    assert [panel.title for panel in learning] == ["gru, chunked", "lstm, chunked"]
    assert learning[0].curves.keys() == {"chunk size 8", "chunk size 16"}
    ended = statistics.stdev((0.5, 9.0))  # seed 1 keeps its last value
    assert_curve(learning[0].curves["chunk size 8"], {10: (2.5, spread), 20: (0.75, 0.5 * spread), 30: (4.75, ended)})

    figure = figures.panels([score, bias, gradient, *learning])
    assert figure.axes[3].get_ylim() == figure.axes[4].get_ylim()
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert np.asarray(lines["gru, chunked"].get_xdata()).tolist() == [8, 16]
    assert lines["gru, chunked"].get_ydata() == pytest.approx([0.23, 0.31])
    assert np.asarray(lines["lstm, full"].get_ydata()).tolist() == [0.1, 0.1]
    assert 0.005 < float((figures.pixels(figure) < 250).any(-1).float().mean()) < 0.9  # ink on white paper
    assert not figure.axes[5].axison


def test_a_run_keeps_its_value_until_the_next() -> None:
    """Random truncations are at other places with every seed."""
    curves = ({10: 1.0, 40: 5.0}, {20: 3.0, 30: 7.0})
    runs = [run_of(f"seed={seed}", curves={LOSS: curve}) for seed, curve in enumerate(curves)]
    found = learning_curve(Group({}, runs, LOSS), LOSS)
    assert {place: mean for place, (mean, _) in found.items()} == {20: 2.0, 30: 4.0, 40: 6.0}


def test_a_run_that_has_not_ended_keeps_no_value() -> None:
    runs = [
        run_of(f"seed={seed}", curves={LOSS: dict.fromkeys(range(seed), 1.0)})._replace(status=RunStatus.INTERRUPTED)
        for seed in (2, 4)
    ]
    assert list(learning_curve(Group({}, runs, LOSS), LOSS)) == [0, 1]


def assert_curve(curve: Any, expected: dict[int, tuple[float, float]]) -> None:
    assert list(curve) == list(expected)
    assert [value for pair in curve.values() for value in pair] == pytest.approx(
        [value for pair in expected.values() for value in pair]
    )


def test_no_panel_without_data() -> None:
    assert panels(grouped([run_of()], [], metric=LOSS), metric=LOSS) == []
    (only,) = panels(grouped([run_of(curves={LOSS: {1: 2.0}})], [], metric=LOSS), metric=LOSS)
    assert only.curves == {"all runs": {1: (2.0, 0.0)}}


# TensorBoard's own table of runs.


@pytest.fixture(scope="module")
def hparams(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Columns and runs reported by a TensorBoard server: two finished runs and a running one."""
    folder = tmp_path_factory.mktemp("table")
    for name in ("0", "1"):
        shutil.copytree(sweep / name, folder / name)
    (path,) = (sweep / "0").glob("events.*")
    content = path.read_bytes()
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / path.name).write_bytes(content[: content.rindex(b"best/") - 40])
    options = ["--logdir", str(folder), "--host", "127.0.0.1", "--port", "0", "--load_fast", "false"]
    output = folder.parent / f"{folder.name}_server.txt"
    with output.open("w") as file:
        command = [sys.executable, "-m", "tensorboard.main", *options, "--reload_interval", "1"]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 60
        groups: dict[str, Any] = {}
        while len(groups.get("sessionGroups", [])) < 3:
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < end, output.read_text()
            time.sleep(0.2)
            if found := re.search(r"http://127\.0\.0\.1:\d+", output.read_text()):
                groups = ask_hparams(found[0], "session_groups", sliceSize=10, allowedStatuses=["STATUS_UNKNOWN"])
        assert found
        yield ask_hparams(found[0], "experiment"), {each["name"]: each for each in groups["sessionGroups"]}
    finally:
        process.terminate()
        process.wait(timeout=10)


def ask_hparams(address: str, path: str, **request: Any) -> Any:
    data = json.dumps(request).encode()
    sent = Request(f"{address}/data/plugin/hparams/{path}", data=data, headers={"Content-Type": "application/json"})
    try:
        return json.loads(urlopen(sent, timeout=10).read())
    except URLError:  # not yet listening
        return {}


def test_tensorboard_shows_hyperparameters(hparams: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Hyperparameters that differ come first; the best score so far comes before other metrics."""
    experiment, groups = hparams
    differing = [info["name"] for info in experiment["hparamInfos"] if info.get("differs")]
    assert differing == [info["name"] for info in experiment["hparamInfos"]][: len(differing)]
    assert "model" in differing
    assert {name: groups[name]["hparams"]["model"] for name in ("0", "1")} == {"0": "gru", "1": "elman"}
    assert groups["0"]["hparams"]["task.delay"] == 10.0
    tags = [info["name"]["tag"] for info in experiment["metricInfos"]]
    flow = [f"gradient_flow/layer1/{name}" for name in ("decay_rate", "horizon", "lag_1")]
    assert tags[:5] == ["best/validation_loss", "cost/wall_seconds", *flow], "which are shown unasked"
    assert {LOSS, "gradient_flow/layer1/horizon", "truncation_bias/relative"} <= set(tags)


def test_tensorboard_shows_metrics_that_are_true(sweep: Path, hparams: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, groups = hparams
    for name in ("0", "1"):
        values = {each["name"]["tag"]: each["value"] for each in groups[name]["metricValues"]}
        summary = json.loads((sweep / name / "summary.json").read_text())
        curves = read_curves(sweep / name, wanted=ANY)
        assert values[LOSS] == pytest.approx(summary["metrics"][LOSS])
        assert values["best/validation_loss"] == pytest.approx(min(curves[LOSS].values()))
        assert 0 < values["cost/wall_seconds"] <= summary["wall_seconds"]
        for tag in ("gradient_flow/layer1/horizon", "truncation_bias/relative"):
            assert values[tag] == pytest.approx(curves[tag][max(curves[tag])])
    unfinished = {each["name"]["tag"] for each in groups["unfinished"]["metricValues"]}
    assert LOSS in unfinished
    assert {"best/validation_loss", "cost/wall_seconds"} <= unfinished
