"""Collect the results of existing runs into docs/results, with a figure for each key."""

from collections.abc import Sequence
from pathlib import Path

from bptt.reproduction import curves, results
from bptt.reproduction.results import Results
from bptt.reproduction.row_runs import OTHER, read_runs
from bptt.reproduction.rows import Publication
from bptt.runs.groups import Group


def collect(publications: Sequence[Publication], root: Path, folder: Path) -> None:
    """Write KEY.json of every publication with runs below `root` or with earlier results.

    A figure is redrawn if at least as many of its rows have runs below `root` as come from earlier results. Runs with
    another configuration than their row's are not drawn.
    """
    for each in publications:
        path = folder / f"{each.key}.json"
        earlier = results.read(path)
        if each.benchmark:
            new_rows = results.from_benchmark(each, root / each.key / "benchmark.json")
            groups: dict[str, Group] = {}
        else:
            runs = {row.name: read_runs(each, row, root) for row in each.rows}
            new_rows = {row.name: results.from_runs(each, row, runs[row.name]) for row in each.rows if runs[row.name]}
            own = {name: [run for run in by_seed.values() if run.error != OTHER] for name, by_seed in runs.items()}
            groups = {name: Group({}, members, each.metric) for name, members in own.items() if members}
        rows = results.joined(each, earlier.rows, new_rows)
        groups = {name: group for name, group in groups.items() if rows[name] is new_rows[name]}
        figure, num_earlier = earlier.figure, sum(row not in new_rows.values() for row in rows.values())
        new_figure = f"{each.key}.png"
        if groups and len(groups) >= num_earlier and curves.draw(each, groups, folder / new_figure):
            figure = new_figure
        updated = Results(rows, figure)
        if rows and updated != earlier:
            results.write(updated, path)
