"""Runs that differ in nothing but their seed, as one result each."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from run_folders import Points, Run

from bptt.contracts import refusal

ABSENT = "–"


def outcome(run: Run, metric: str) -> str:
    """Its status; or that it diverged, where the metric is no finite number; or that it lacks the metric."""
    if run.status != "failed" and metric in run.metrics and run.metrics[metric] is None:
        return "diverged"
    if run.status == "completed" and metric not in run.metrics:
        return f"without {metric}"
    return run.status


class Group(NamedTuple):
    """Runs that share the values of all keys that are compared."""

    values: Mapping[str, Any]
    runs: Sequence[Run]
    metric: str

    @property
    def task(self) -> str:
        """The task's name, where tasks are compared."""
        return str(self.values.get("task", ""))

    @property
    def counted(self) -> list[Run]:
        """The runs that make up the score: completed, with a finite metric."""
        return [run for run in self.runs if outcome(run, self.metric) == "completed"]

    @property
    def mean(self) -> float | None:
        return mean(run.metrics[self.metric] for run in self.counted)

    @property
    def deviation(self) -> float | None:
        """The standard deviation over seeds, of a sample: by n − 1."""
        scores = [run.metrics[self.metric] or 0.0 for run in self.counted]
        return statistics.stdev(scores) if len(scores) > 1 else None

    @property
    def horizon(self) -> float | None:
        return mean(horizon(run) for run in self.counted)

    @property
    def wall_seconds(self) -> float | None:
        return mean(run.wall_seconds for run in self.counted)

    @property
    def left_out(self) -> str:
        """How many runs are not in the score, and why: "1 diverged, 1 running (0.52 so far)"."""
        others = [run for run in self.runs if outcome(run, self.metric) != "completed"]
        parts = []
        for name, count in sorted(Counter(outcome(run, self.metric) for run in others).items()):
            values = [run.metrics.get(self.metric) for run in others if outcome(run, self.metric) == name]
            known = ", ".join(f"{value:.4g}" for value in values if value is not None)
            so_far = f" ({known} so far)" if known and name in ("running", "interrupted") else ""
            parts.append(f"{count} {name}{so_far}")
        return ", ".join(parts)

    @property
    def drawn(self) -> Sequence[Run]:
        """The runs whose curves are drawn: those of the score, or where there are none, all."""
        return self.counted or self.runs

    def label(self, *, without: str = "") -> str:
        """The values on one line: names, then numbers with what they are of."""
        shown = dict(zip(self.values.items(), columns(self.values)))
        pairs = [(column, value) for (key, value), column in shown.items() if key != without and value != ABSENT]
        words = [value for _, value in pairs if isinstance(value, str)]
        numbers = [f"{column} {value}" for column, value in pairs if not isinstance(value, str)]
        return ", ".join([*words, *numbers]) or "all runs"


def mean(values: Iterable[float | None]) -> float | None:
    """Of the values there are."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def last(points: Points | None) -> float | None:
    return points[max(points)] if points else None


def horizon(run: Run) -> float | None:
    """How many timesteps the gradient reached at the end of training: in the layer where that is most."""
    reaches = [last(points) for tag, points in run.curves.items() if tag.endswith("/horizon")]
    return max((reach for reach in reaches if reach is not None), default=None)


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys of choices that are not the same in all runs, but for what only follows from another.

    That is the seed, seeds that are equal to it, and settings that come and go with the name of their group, as an
    LSTM has no nonlinearity: unless runs of that name differ in them too.
    """
    keys = dict.fromkeys(key for run in runs for key in run.choices)
    found = []
    for key in keys:
        values = [run.choices.get(key, ABSENT) for run in runs]
        if len(set(values)) == 1 or key == "seed":
            continue
        if key.endswith(".seed") and all(run.choices.get(key, run.seed) == run.seed for run in runs):
            continue
        names = [run.choices.get(key.partition(".")[0]) for run in runs]
        follows = len(set(zip(names, values))) == len(set(names))
        if ABSENT in values and "." in key and follows:
            continue
        found.append(key)
    return found


def chosen_keys(by: str | None, runs: Sequence[Run]) -> list[str]:
    """The keys named by by=KEY,KEY, in full or by their last part; without it those that differ."""
    if by is None:
        return differing(runs)
    known = dict.fromkeys(key for run in runs for key in run.choices)
    found = []
    for word in by.split(","):
        fitting = [key for key in known if word in (key, key.rpartition(".")[2])]
        fitting = [word] if word in fitting else fitting
        if len(fitting) != 1:
            several = f"one of {', '.join(fitting)}" if fitting else "a key of the runs' configurations"
            remedy = f"they differ in {', '.join(differing(runs)) or 'the seed alone'}"
            raise ValueError(refusal("by", several, word, remedy))
        found += fitting
    return found


def columns(keys: Iterable[str]) -> list[str]:
    """Keys by their last part, where no other key ends the same."""
    keys = list(keys)
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return [end if ends[end := key.rpartition(".")[2]] == 1 else key for key in keys]


def grouped(runs: Sequence[Run], keys: Sequence[str], *, metric: str, mode: str = "min") -> list[Group]:
    """One group for each combination of values there is; the best first, and last those without a score.

    Where tasks differ, that is so within each task, as losses of different tasks do not compare.
    """
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(run.choices.get(key, ABSENT) for key in keys), []).append(run)
    groups = [Group(dict(zip(keys, values)), members, metric) for values, members in found.items()]
    sign = 1 if mode == "min" else -1
    ranks = {id(group): (group.task, group.mean is None, sign * (group.mean or 0.0)) for group in groups}
    return sorted(groups, key=lambda group: ranks[id(group)])
