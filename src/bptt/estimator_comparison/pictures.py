"""Figures of a comparison."""

from pathlib import Path

from bptt import figures
from bptt.estimator_comparison.page import FIGURES
from bptt.estimator_comparison.results import Results, alignment_correlation, groups


def draw(results: Results, folder: Path) -> None:
    """Learnt lag against cost, and against alignment with the rank correlation of each task and cell."""
    by_cost, by_alignment, titles = {}, {}, {}
    for panel, rows in groups(results.rows).items():
        by_cost[panel] = [(row.estimator, row.microseconds, row.lag) for row in rows if row.microseconds is not None]
        by_alignment[panel] = [(row.estimator, row.cosine, row.lag) for row in rows if row.cosine is not None]
        correlation = alignment_correlation(rows)
        if correlation is not None:
            titles[panel] = f"{', '.join(panel)}: ρ = {correlation:.2f}"
    cost, alignment = FIGURES
    label = "µs of processor time a timestep"
    figures.save(figures.learnt_lags(by_cost, label=label, log=True, titles={}), folder / cost)
    label = "cosine with the exact gradient"
    figures.save(figures.learnt_lags(by_alignment, label=label, log=False, titles=titles), folder / alignment)
