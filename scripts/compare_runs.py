"""Compare finished and unfinished runs: scores over seeds, learning curves and gradients.

    python scripts/compare_runs.py FOLDER [FOLDER …] [by=KEY,KEY] [metric=validation/loss] [mode=min] [out=FOLDER]

Reads every run in the folders: a single run, a sweep, or all of outputs. Runs that differ only in their seed form one
line of the table with mean ± standard deviation over seeds. The best line comes first.

    by=KEY,KEY     keys that the runs are grouped by, such as by=model,chunk_size; by default all keys that differ
    metric=NAME    a metric of summary.json, its last value
    mode=min       or max: whether the smallest or the largest is best; by default from the metric's name
    out=FOLDER     folder for comparison.md, .csv, .html and .png; by default the first folder

A score is the mean over completed runs with a finite metric; other runs (running, interrupted, failed, diverged) are
counted separately. The horizon is that of the layer with the longest one, at the end of training. The HTML file is
self-contained.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bptt.configuration.arguments import run_script, script_arguments
from bptt.configuration.errors import one_line
from bptt.contracts import one_of
from bptt.run_folder import RunStatus
from bptt.runs.comparison import aligned, table, write_comparison
from bptt.runs.groups import chosen_keys, grouped, mode_of
from bptt.runs.other_data import of_other_data
from bptt.runs.reading import Run, find_runs, read_run
from bptt.sweeps.manifest import Manifest, recorded_state

DEFAULT = "validation/loss"


def name_lost_jobs(folders: Sequence[Path], runs: Iterable[Path]) -> None:
    """Print a line to stderr for each job that a sweep has recorded and whose folder is gone.

    The sweeps are the folders, and those between a folder and its runs.
    """
    inside = {parent for run in runs for parent in run.parents if any(parent.is_relative_to(each) for each in folders)}
    for sweep in sorted({*folders, *inside}):
        for name, record in Manifest(sweep).newest().items():
            state = recorded_state(record)
            never_began = state.is_failure or state == RunStatus.MISSING  # such a job has left no folder
            if not (never_began or (sweep / name).is_dir()):
                print(f"skipped {sweep / name}: the sweep says {state}, but the folder is missing", file=sys.stderr)


def read_runs(folders: Sequence[Path], *, metric: str) -> list[Run]:
    """Read all runs in the folders. Prints a line to stderr for each run that cannot be read."""
    runs, found = [], find_runs(folders)
    for folder in folders if found else []:
        if not any(run.is_relative_to(folder) for run in found):
            print(f"skipped {folder}: it holds no runs, or runs that another folder holds", file=sys.stderr)
    name_lost_jobs(folders, found)
    for folder in found:
        try:
            runs.append(read_run(folder, metric=metric))
        except (ValueError, OSError) as error:
            print(f"skipped {folder}: {one_line(error)}", file=sys.stderr)
    if not runs:
        names = " ".join(str(folder) for folder in folders)
        raise ValueError(f"FOLDER must hold runs, got {names or 'no folder'}; say for example outputs")
    return runs


def main() -> None:
    arguments, folders = script_arguments({"by": None, "metric": DEFAULT, "mode": None, "out": None})
    metric = arguments["metric"]
    mode = arguments["mode"] or mode_of(metric)
    one_of(("min", "max"), mode=mode)
    runs = read_runs([Path(folder) for folder in folders], metric=metric)
    known = sorted({name for run in runs for name in run.metrics})
    if known and (metric != DEFAULT or any(run.status.has_score for run in runs)):
        one_of(known, metric=metric)  # runs that were not validated yet lack the default one
    groups = grouped(runs, chosen_keys(arguments["by"], runs), metric=metric, mode=mode)
    rows = table(groups, metric=metric)
    best = "smallest" if mode == "min" else "largest"
    notes = [f"{metric}, the last of each run: mean ± standard deviation over the runs of a line; the {best} first."]
    if keys := of_other_data(runs):
        notes.append(f"Scores may be of different data, since the runs differ in {', '.join(keys)}.")
    if any(len({run.settings.get("task") for run in group.runs}) > 1 for group in groups):
        notes.append("A line averages over different tasks, since by= leaves out task.")
    if any(group.left_out for group in groups):
        notes.append("† not all runs are in the score: see “not counted”.")
    print("\n".join([*aligned(rows), "", *notes]))
    print(*write_comparison(groups, rows, Path(arguments["out"] or folders[0]), metric=metric, notes=notes), sep="\n")


if __name__ == "__main__":
    run_script(main, __doc__)
