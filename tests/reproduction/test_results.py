"""Our numbers as files: what is kept, what is replaced, what is drawn."""

import json
import statistics
from pathlib import Path

import pytest

from bptt.configuration.compose import ROOT
from bptt.reproduction import results
from bptt.reproduction.results import Results, RowResult, SeedResult, from_benchmark, from_runs, joined
from bptt.reproduction.row_runs import OTHER, read_runs, run_folder, score
from bptt.reproduction.rows import KEYS, Publication, Row, publication
from bptt.run_folder import RunStatus
from bptt.runs.reading import Run

VERSIONS = {"python": "3.11.7", "torch": "2.13.0"}
RESULTS = ROOT / "docs" / "results"


def two_rows() -> Publication:
    rows = (Row("short", ("experiment=lag_bits",), seeds=(1, 2)), Row("long", ("experiment=adding",), seeds=(1, 2)))
    return Publication("key", "Source (2000)", "says", rows, metric="test/loss")


def result(each: Publication, name: str, *, ended: int, mean: float) -> RowResult:
    (row,) = [row for row in each.rows if row.name == name]
    return RowResult(each.command(row), mean=mean, seeds_ended=ended)


def make_run(folder: Path, status: str, score: float | None, *, error: str | None = None) -> Run:
    folder.mkdir(parents=True)
    summary = {"status": status, "metrics": {}, "versions": VERSIONS}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    metrics = {} if score is None else {"test/loss": score}
    return Run(folder, {"seed": int(folder.name)}, RunStatus(status), metrics, wall_seconds=90.0, error=error)


@pytest.mark.parametrize("key", KEYS)
def test_committed_results_are_of_rows_that_exist_and_add_up(key: str) -> None:
    each, found = publication(key), results.read(RESULTS / f"{key}.json")
    rows = {row.name: row for row in each.rows}
    assert found.rows.keys() <= rows.keys()
    assert not found.figure or (RESULTS / found.figure).is_file()
    for name, row in found.rows.items():
        assert row.command == each.command(rows[name]), "results of another command would be dropped"
        assert row.experiment in ("", each.experiment), "results of other settings would be dropped"
        assert {run.seed for run in row.runs} <= set(rows[name].seeds)
        assert row.versions
        assert row.date
        scores = [run.score for run in row.runs if run.score is not None]
        if len(scores) > 1 and len(scores) == row.seeds_ended:
            assert row.mean == pytest.approx(statistics.fmean(scores), abs=5e-4)


@pytest.mark.parametrize("key", KEYS)
def test_committed_files_are_as_they_are_written(key: str, tmp_path: Path) -> None:
    path = RESULTS / f"{key}.json"
    if not path.is_file():
        assert results.read(path) == Results()
        return
    results.write(results.read(path), tmp_path / "results.json")
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


def test_what_was_run_elsewhere_stays_row_by_row() -> None:
    each = two_rows()
    earlier = {name: result(each, name, ended=2, mean=0.1) for name in ("short", "long")}
    found = {"short": result(each, "short", ended=2, mean=0.2)}
    assert joined(each, earlier, found) == {"short": found["short"], "long": earlier["long"]}
    assert joined(each, earlier, {}) == earlier
    assert joined(each, {}, found) == found


def test_fewer_seeds_do_not_replace_more() -> None:
    each = two_rows()
    earlier = {"short": result(each, "short", ended=2, mean=0.1)}
    found = {"short": result(each, "short", ended=1, mean=0.2)}
    assert joined(each, earlier, found) == earlier


@pytest.mark.parametrize("ended", [0, 1])
def test_results_of_another_command_do_not_stay(ended: int) -> None:
    each = two_rows()
    earlier = {"short": result(each, "short", ended=2, mean=0.1)._replace(command="python scripts/train.py seed=1,2")}
    found = {"short": result(each, "short", ended=ended, mean=0.2)} if ended else {}
    assert joined(each, earlier, found) == found


def test_results_of_an_experiment_with_other_settings_do_not_stay() -> None:
    """Settings that were not recorded may be these."""
    each = publication("anbn")
    (row, *_) = each.rows
    earlier = RowResult(each.command(row), mean=0.1, experiment=each.experiment)
    for kept in (earlier, earlier._replace(experiment="")):
        assert joined(each, {row.name: kept}, {}) == {row.name: kept}
    assert joined(each, {row.name: earlier._replace(experiment="of clipped runs")}, {}) == {}
    assert len({publication(key).experiment for key in KEYS}) == len(KEYS)
    assert publication("checkpointing").experiment == "", "a benchmark is no experiment"


def test_results_of_rows_that_are_gone_do_not_stay() -> None:
    each = two_rows()
    earlier = {"gone": RowResult("python scripts/train.py seed=1,2", mean=0.1)}
    assert joined(each, earlier, {}) == {}


def test_a_result_holds_every_seed_and_is_read_back_as_it_was(tmp_path: Path) -> None:
    each = two_rows()
    row = each.rows[0]
    runs = {
        1: make_run(tmp_path / "1", "completed", 0.25),
        2: make_run(tmp_path / "2", "stopped", 0.75),
        3: make_run(tmp_path / "3", "interrupted", 0.5),
        4: make_run(tmp_path / "4", "missing", None, error=OTHER),
    }
    found = from_runs(each, row, runs)
    assert found == RowResult(
        command="python scripts/train.py -m experiment=lag_bits seed=1,2",
        runs=(
            SeedResult(1, "completed", 0.25),
            SeedResult(2, "stopped", 0.75),
            SeedResult(3, "interrupted"),
            SeedResult(4, OTHER),
        ),
        mean=0.5,
        deviation=pytest.approx(0.5**1.5),  # type: ignore[arg-type]  # compares as a number
        seeds_ended=2,
        minutes=1.5,
        not_counted=f"1 interrupted (0.5 so far), 1 {OTHER}",
        versions=VERSIONS,
        date=found.date,
    )
    assert found.date >= "2026"
    results.write(Results({"short": found}, "key.png"), tmp_path / "key.json")
    assert results.read(tmp_path / "key.json") == Results({"short": found}, "key.png")


def test_minutes_are_those_of_finished_runs(tmp_path: Path) -> None:
    runs = {seed: make_run(tmp_path / str(seed), "completed", 0.25) for seed in (1, 2)}
    stopped = make_run(tmp_path / "3", "interrupted", None)._replace(wall_seconds=1.0)
    each = two_rows()
    assert from_runs(each, each.rows[0], {**runs, 3: stopped}).minutes == 1.5
    assert from_runs(each, each.rows[0], {3: stopped}).minutes is None


def test_a_score_that_is_not_finite_is_a_divergence(tmp_path: Path) -> None:
    runs = {seed: make_run(tmp_path / str(seed), "completed", 0.25) for seed in (1, 2)}
    content = {**json.loads((tmp_path / "2" / "summary.json").read_text()), "counters": {"updates": 5}}
    (tmp_path / "2" / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    scores = {"updates": 5, "scores": {"test/loss": float("nan")}}
    (tmp_path / "2" / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    runs[2] = runs[2]._replace(metrics={"test/loss": score(tmp_path / "2", "test/loss")})
    each = two_rows()
    found = from_runs(each, each.rows[0], runs)
    assert (found.mean, found.diverges, found.not_counted) == (0.25, True, "1 diverged")


def test_a_summary_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    each = publication("lag_bits")
    folder = run_folder(tmp_path, each, each.rows[0], 1)
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text('{"status": "comp', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{folder} must hold a run that can be read, got .*; move it away"):
        read_runs(each, each.rows[0], tmp_path)


def test_versions_that_differ_between_runs_are_all_kept(tmp_path: Path) -> None:
    runs = {seed: make_run(tmp_path / str(seed), "completed", 0.25) for seed in (1, 2)}
    summary = json.loads((tmp_path / "2" / "summary.json").read_text(encoding="utf-8"))
    summary["versions"]["torch"] = "2.14.0"
    (tmp_path / "2" / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    each = two_rows()
    assert from_runs(each, each.rows[0], runs).versions == {"python": "3.11.7", "torch": "2.13.0 and 2.14.0"}


def test_ratios_of_a_benchmark(tmp_path: Path) -> None:
    each = publication("checkpointing")
    assert from_benchmark(each, tmp_path / "benchmark.json") == {}
    lines = [{"title": row.title, "ratio": 0.5, "low": 0.25, "high": 0.75} for row in each.rows]
    content = {"machine": VERSIONS, "sections": {"exact": {"date": "2026-01-02", "rows": lines}}}
    (tmp_path / "benchmark.json").write_text(json.dumps(content), encoding="utf-8")
    found = from_benchmark(each, tmp_path / "benchmark.json")
    assert found.keys() == {row.name for row in each.rows}
    assert found["gru_time"] == RowResult(
        "python scripts/benchmark.py exact", mean=0.5, low=0.25, high=0.75, versions=VERSIONS, date="2026-01-02"
    )
