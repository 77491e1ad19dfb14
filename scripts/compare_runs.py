"""Compare finished and unfinished runs: scores over seeds, learning curves and gradients.

    python scripts/compare_runs.py FOLDER [FOLDER …] [by=KEY,KEY] [metric=validation/loss] [mode=min] [out=FOLDER]

Reads every run found in the folders: one run, one sweep, or all of outputs. Runs that differ in their seed alone make
one line of the table: mean ± standard deviation over seeds, the best line first.

    by=KEY,KEY     what the runs are grouped by, such as by=model,chunk_size; by default all keys that differ
    metric=NAME    a metric of summary.json, as it was last
    mode=min       or max: whether the smallest or the largest is best; by default by the metric's name
    out=FOLDER     where comparison.md, .csv, .html and .png go; by default the first folder

A score is of completed runs with a finite metric; the others (running, interrupted, failed, diverged) are counted
beside it. The horizon is that of the layer where the gradient reaches furthest, at the end. The HTML file is whole in
itself, to be sent.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from bptt.configuration.arguments import run_script, script_arguments
from bptt.configuration.errors import one_line
from bptt.contracts import one_of, refusal
from bptt.runs.comparison import aligned, table, write_comparison
from bptt.runs.groups import best_of, chosen_keys, grouped
from bptt.runs.reading import Run, find_runs, read_run


def read_runs(folders: Iterable[Path], *, metric: str) -> list[Run]:
    """All runs that can be read; the others are named on stderr."""
    runs = []
    for folder in find_runs(folders):
        try:
            runs.append(read_run(folder, metric=metric))
        except (ValueError, OSError) as error:
            print(f"skipped {folder}: {one_line(error)}", file=sys.stderr)
    if not runs:
        names = " ".join(str(folder) for folder in folders)
        raise ValueError(refusal("FOLDER", "a folder with runs in it", names or None, "such as outputs"))
    known = sorted({name for run in runs for name in run.metrics})
    if known:
        one_of(known, metric=metric)
    return runs


def main() -> None:
    arguments, words = script_arguments({"by": None, "metric": "validation/loss", "mode": None, "out": None})
    metric = arguments["metric"]
    mode = arguments["mode"] or best_of(metric)
    one_of(("min", "max"), mode=mode)
    runs = read_runs([Path(word) for word in words], metric=metric)
    groups = grouped(runs, chosen_keys(arguments["by"], runs), metric=metric, mode=mode)
    rows = table(groups, metric=metric)
    best = "smallest" if mode == "min" else "largest"
    notes = [f"{metric}, the last of each run: mean ± standard deviation over the runs of a line; the {best} first."]
    if any(group.left_out for group in groups):
        notes.append("† not all runs are in the score: see “not counted”.")
    print("\n".join([*aligned(rows), "", *notes]))
    print(*write_comparison(groups, rows, Path(arguments["out"] or words[0]), metric=metric, notes=notes), sep="\n")


if __name__ == "__main__":
    run_script(main, __doc__)
