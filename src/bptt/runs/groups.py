"""Groups of runs that differ only in their seed. Each group has one result."""

import re
import statistics
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from bptt.contracts import refusal
from bptt.run_folder import RunStatus
from bptt.runs.reading import Points, Run

ABSENT = "–"
HIGHER_IS_BETTER = re.compile("accuracy|recall|precision|f1|auroc|specificity|jaccard|skill|r2|cosine|success|bleu")


def mode_of(metric: str) -> Literal["min", "max"]:
    """`max` if larger values of a metric are better, judged by its name, else `min`."""
    return "max" if HIGHER_IS_BETTER.search(metric.rpartition("/")[2].lower()) else "min"


def outcome(run: Run, metric: str) -> str:
    """The run's status; `diverged` if the metric is not finite; `without METRIC` if a finished run lacks it."""
    if run.status != RunStatus.FAILED and metric in run.metrics and run.metrics[metric] is None:
        return RunStatus.DIVERGED
    if run.status.has_score and metric not in run.metrics:
        return f"without {metric}"
    return run.status


def is_scored(run: Run, metric: str) -> bool:
    """True for a run that was trained to the end of its budget, with a finite metric."""
    return run.status.has_score and run.metrics.get(metric) is not None


class Group(NamedTuple):
    """Runs with the same values of all compared settings."""

    values: Mapping[str, Any]
    runs: Sequence[Run]
    metric: str

    @property
    def task(self) -> str:
        """The task's name if tasks are compared, else empty."""
        return str(self.values.get("task", ""))

    @property
    def counted(self) -> list[Run]:
        """The runs that make up the score: trained to the end of their budget, with a finite metric, none twice."""
        first: dict[Any, Run] = {}
        for run in self.runs:
            if is_scored(run, self.metric):
                first.setdefault(run.draw, run)
        return list(first.values())

    @property
    def mean(self) -> float | None:
        return mean(run.metrics[self.metric] for run in self.counted)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds (n − 1)."""
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
        """Number of runs that are not in the score, with reasons: "1 diverged, 1 running (0.52 so far)".

        Runs of equal settings and seed are one draw: all but the first are `repeated`.
        """
        counted = {run.folder for run in self.counted}
        others: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.folder not in counted:
                others.setdefault("repeated" if is_scored(run, self.metric) else outcome(run, self.metric), []).append(
                    run
                )
        parts = []
        for name, runs in sorted(others.items()):
            values = [run.metrics.get(self.metric) for run in runs]
            known = ", ".join(f"{value:.4g}" for value in values if value is not None)
            so_far = f" ({known} so far)" if known and name in (RunStatus.RUNNING, RunStatus.INTERRUPTED) else ""
            parts.append(f"{len(runs)} {name}{so_far}")
        return ", ".join(parts)

    @property
    def drawn(self) -> Sequence[Run]:
        """The runs whose curves are drawn: those of the score, or all if there are none."""
        return self.counted or self.runs

    def label(self, *, without: str = "") -> str:
        """The values on one line: names first, then numbers with their settings."""
        shown = dict(zip(self.values.items(), short_keys(self.values)))
        pairs = [(column, value) for (key, value), column in shown.items() if key != without and value != ABSENT]
        words = [value for _, value in pairs if isinstance(value, str)]
        numbers = [f"{column} {value}" for column, value in pairs if not isinstance(value, str)]
        return ", ".join([*words, *numbers]) or "all runs"


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None, or None."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def last_value(points: Points | None) -> float | None:
    """Value at the largest step, or None."""
    return points[max(points)] if points else None


def horizon(run: Run) -> float | None:
    """The gradient's horizon at the end of training, in timesteps: the largest of all layers."""
    by_layer = [last_value(points) for tag, points in run.curves.items() if tag.endswith("/horizon")]
    return max((lag for lag in by_layer if lag is not None), default=None)


def differing(runs: Sequence[Run]) -> list[str]:
    """Settings in which runs differ, without those that others imply.

    Left out: `seed`, and seeds that are equal to it. Also settings that only some choices of a group have (an LSTM has
    no nonlinearity), unless runs with the same choice differ in them.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    differing_keys = []
    for key in keys:
        values = [run.settings.get(key, ABSENT) for run in runs]
        if len(set(values)) == 1 or key == "seed":
            continue
        if key.endswith(".seed") and all(run.settings.get(key, run.seed) == run.seed for run in runs):
            continue
        owner = owner_of(key, keys)
        names = [run.settings.get(owner) for run in runs]
        implied_by_name = len(set(zip(names, values))) == len(set(names))
        if ABSENT in values and "." in key and implied_by_name:
            continue
        differing_keys.append(key)
    return differing_keys


def owner_of(key: str, keys: Container[str]) -> str:
    """The longest beginning of a dotted key that is a key itself: the group or callback which has the setting."""
    owner = key.rpartition(".")[0]
    return owner if not owner or owner in keys else owner_of(owner, keys)


def chosen_keys(by: str | None, runs: Sequence[Run]) -> list[str]:
    """The settings named by by=KEY,KEY, in full or by their last part; by default those that differ."""
    if by is None:
        return differing(runs)
    known = dict.fromkeys(key for run in runs for key in run.settings)
    chosen = []
    for word in by.split(","):
        matches = [key for key in known if word in (key, key.rpartition(".")[2])]
        matches = [word] if word in matches else matches
        if len(matches) != 1:
            wanted = f"one of {', '.join(matches)}" if matches else "a key of the runs' configurations"
            remedy = f"they differ in {', '.join(differing(runs)) or 'the seed alone'}"
            raise ValueError(refusal("by", wanted, word, remedy))
        chosen += matches
    return chosen


def short_keys(keys: Iterable[str], *, taken: Iterable[str] = ()) -> list[str]:
    """The last part of each key, or the whole key if two have the same last part, or if it is among the `taken`."""
    keys = list(keys)
    counts = Counter([*(key.rpartition(".")[2] for key in keys), *taken])
    return [last if counts[last := key.rpartition(".")[2]] == 1 else key for key in keys]


def grouped(runs: Sequence[Run], keys: Sequence[str], *, metric: str, mode: str = "min") -> list[Group]:
    """One group for each combination of values, the best first, those without a score last.

    If tasks differ, groups are sorted within each task, because losses of different tasks cannot be compared.
    """
    runs_by_values: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        runs_by_values.setdefault(tuple(run.settings.get(key, ABSENT) for key in keys), []).append(run)
    groups = [Group(dict(zip(keys, values)), members, metric) for values, members in runs_by_values.items()]
    sign = 1 if mode == "min" else -1
    ranks = {id(group): (group.task, group.mean is None, sign * (group.mean or 0.0)) for group in groups}
    return sorted(groups, key=lambda group: ranks[id(group)])
