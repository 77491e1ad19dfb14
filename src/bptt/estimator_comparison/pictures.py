"""Figures of a comparison."""

from pathlib import Path

from bptt import figures
from bptt.estimator_comparison.page import FIGURES
from bptt.estimator_comparison.results import Results, Row, alignment_correlation, groups


def draw(results: Results, folder: Path) -> None:
    """Learnt lag against cost, and against alignment with the rank correlations of each cell."""
    by_task: dict[str, list[Row]] = {}
    titles: dict[str, str] = {}
    for (task, cell), rows in groups(results.rows).items():
        by_task.setdefault(task, []).extend(rows)
        correlation = alignment_correlation(rows)
        if correlation is not None:
            titles[task] = f"{titles.get(task, task)}\n{cell}: ρ = {correlation:.2f}"
    cost, alignment = FIGURES
    plain = {task: task for task in by_task}
    points = {
        task: [(row.estimator, row.cell, row.microseconds, row.lag) for row in rows if row.microseconds is not None]
        for task, rows in by_task.items()
    }
    label = "cost, µs of processor time a timestep"
    figures.save(figures.learnt_lags(points, label=label, log=True, titles=plain), folder / cost)
    points = {
        task: [(row.estimator, row.cell, row.cosine, row.lag) for row in rows if row.cosine is not None]
        for task, rows in by_task.items()
    }
    label = "cosine with the exact gradient"
    figures.save(figures.learnt_lags(points, label=label, log=False, titles=plain | titles), folder / alignment)
