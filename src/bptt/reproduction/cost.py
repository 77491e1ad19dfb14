"""Estimated cost of the runs of published rows, from the duration of earlier runs."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bptt.reproduction import results
from bptt.reproduction.row_runs import chosen_rows, run_folder
from bptt.reproduction.rows import Publication


class Cost(NamedTuple):
    """Number of runs, the sum of their minutes, and the number of runs of unknown duration."""

    runs: int = 0
    minutes: float = 0.0
    unknown: int = 0

    def plus(self, minutes: float | None) -> "Cost":
        """The cost with one more run."""
        return Cost(self.runs + 1, self.minutes + (minutes or 0.0), self.unknown + (minutes is None))

    def __str__(self) -> str:
        runs = f"{self.runs} run{'' if self.runs == 1 else 's'}"
        if not self.runs:
            return runs
        if self.unknown == self.runs:
            return f"{runs} of unknown length"
        unknown = f" and {self.unknown} of unknown length" if self.unknown else ""
        return f"{runs}: {self.minutes / 60:.1f} hours{unknown}"


def costs(each: Publication, keys: Sequence[str], waiting: Collection[Path], root: Path, folder: Path) -> list[Cost]:
    """Cost of the chosen rows of a key: of all runs, and of the waiting ones, as if one ran after another.

    A run is taken to last as long as earlier ones of its row. An interrupted run counts in full. Benchmarks are not
    runs and are omitted.
    """
    earlier = results.read(folder / f"{each.key}.json").rows
    total, left = Cost(), Cost()
    for row in [] if each.benchmark else chosen_rows(each, keys):
        minutes = earlier[row.name].minutes if row.name in earlier else None
        for seed in row.seeds:
            total = total.plus(minutes)
            left = left.plus(minutes) if run_folder(root, each, row, seed) in waiting else left
    return [total, left]


def announcement(cost_by_key: Mapping[str, Sequence[Cost]]) -> list[str]:
    """Lines with the cost of every key, and of all together."""
    sums = [Cost(*map(sum, zip(*column))) for column in zip(*cost_by_key.values())]
    lines = [*cost_by_key.items(), *([("all", sums)] if len(cost_by_key) > 1 else [])]
    return [f"{name}: {total}; left: {left}" for name, (total, left) in lines]
