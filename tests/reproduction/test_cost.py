"""Costs of runs are estimated from the minutes of earlier ones."""

from pathlib import Path

from bptt.reproduction import results
from bptt.reproduction.cost import Cost, announcement, costs
from bptt.reproduction.results import Results, RowResult
from bptt.reproduction.row_runs import run_folder
from bptt.reproduction.rows import publication


def test_chosen_rows_are_summed_over_their_seeds(tmp_path: Path) -> None:
    each = publication("influence_balancing")
    known = {"randomized": RowResult("command", minutes=90.0), "full": RowResult("command", minutes=30.0)}
    results.write(Results(known), tmp_path / "influence_balancing.json")
    rows = {row.name: row for row in each.rows}
    waiting = [run_folder(tmp_path, each, rows["randomized"], seed) for seed in (2, 3)]
    words = [f"influence_balancing/{name}" for name in ("randomized", "full", "rtrl")]
    assert costs(each, words, waiting, tmp_path, tmp_path) == [Cost(5, 300.0, 1), Cost(2, 180.0)]


def test_lines() -> None:
    named = {
        "a": [Cost(5, 300.0, 1), Cost(2, 180.0)],
        "b": [Cost(1, 0.0, 1), Cost(1, 0.0, 1)],
        "c": [Cost(1, 6.0), Cost()],
    }
    assert announcement(named) == [
        "a: 5 runs: 5.0 hours and 1 of unknown length; left: 2 runs: 3.0 hours",
        "b: 1 run of unknown length; left: 1 run of unknown length",
        "c: 1 run: 0.1 hours; left: 0 runs",
        "all: 7 runs: 5.1 hours and 2 of unknown length; left: 3 runs: 3.0 hours and 1 of unknown length",
    ]
    assert announcement({"a": named["a"]}) == announcement(named)[:1]
    assert announcement({}) == []
