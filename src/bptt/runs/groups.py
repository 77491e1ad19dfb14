"""Groups of runs that differ in their seed alone: one result each."""

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from bptt.contracts import refusal
from bptt.run_folder import RunStatus
from bptt.runs.reading import Points, Run

ABSENT = "–"
HIGHER_IS_BETTER = re.compile("accuracy|recall|precision|f1|auroc|specificity|jaccard|skill|r2|cosine|success|bleu")


def best_of(metric: str) -> Literal["min", "max"]:
    """The best end of a metric, by its name: `max` for accuracies and the like, else `min`."""
    return "max" if HIGHER_IS_BETTER.search(metric.rpartition("/")[2].lower()) else "min"


def outcome(run: Run, metric: str) -> str:
    """The run's status; or `diverged` if the metric is not finite; or that the run lacks the metric."""
    if run.status != RunStatus.FAILED and metric in run.metrics and run.metrics[metric] is None:
        return RunStatus.DIVERGED
    if run.status.has_score and metric not in run.metrics:
        return f"without {metric}"
    return run.status


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
        """The runs that make up the score: trained to the end of their budget, with a finite metric."""
        return [run for run in self.runs if run.status.has_score and run.metrics.get(self.metric) is not None]

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
        """Number of runs that are not in the score, with reasons: "1 diverged, 1 running (0.52 so far)"."""
        counted = {run.folder for run in self.counted}
        others = [run for run in self.runs if run.folder not in counted]
        parts = []
        for name, count in sorted(Counter(outcome(run, self.metric) for run in others).items()):
            values = [run.metrics.get(self.metric) for run in others if outcome(run, self.metric) == name]
            known = ", ".join(f"{value:.4g}" for value in values if value is not None)
            so_far = f" ({known} so far)" if known and name in (RunStatus.RUNNING, RunStatus.INTERRUPTED) else ""
            parts.append(f"{count} {name}{so_far}")
        return ", ".join(parts)

    @property
    def drawn(self) -> Sequence[Run]:
        """The runs whose curves are drawn: those of the score, or all if there are none."""
        return self.counted or self.runs

    def label(self, *, without: str = "") -> str:
        """The values on one line: names first, then numbers with their settings."""
        shown = dict(zip(self.values.items(), columns(self.values)))
        pairs = [(column, value) for (key, value), column in shown.items() if key != without and value != ABSENT]
        words = [value for _, value in pairs if isinstance(value, str)]
        numbers = [f"{column} {value}" for column, value in pairs if not isinstance(value, str)]
        return ", ".join([*words, *numbers]) or "all runs"


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None, or None."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def last(points: Points | None) -> float | None:
    return points[max(points)] if points else None


def horizon(run: Run) -> float | None:
    """The gradient's horizon at the end of training, in timesteps: the largest of all layers."""
    reaches = [last(points) for tag, points in run.curves.items() if tag.endswith("/horizon")]
    return max((reach for reach in reaches if reach is not None), default=None)


def differing(runs: Sequence[Run]) -> list[str]:
    """Settings in which runs differ, without those that follow from others.

    Left out: the seed and seeds that are equal to it; and settings that only runs of one name in their group have, as
    an LSTM has no nonlinearity, unless runs of that name differ in them.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    found = []
    for key in keys:
        values = [run.settings.get(key, ABSENT) for run in runs]
        if len(set(values)) == 1 or key == "seed":
            continue
        if key.endswith(".seed") and all(run.settings.get(key, run.seed) == run.seed for run in runs):
            continue
        names = [run.settings.get(key.partition(".")[0]) for run in runs]
        follows = len(set(zip(names, values))) == len(set(names))
        if ABSENT in values and "." in key and follows:
            continue
        found.append(key)
    return found


def chosen_keys(by: str | None, runs: Sequence[Run]) -> list[str]:
    """The settings named by by=KEY,KEY, in full or by their last part; by default those that differ."""
    if by is None:
        return differing(runs)
    known = dict.fromkeys(key for run in runs for key in run.settings)
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
    """The last part of each key, or the whole key if another one ends the same."""
    keys = list(keys)
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return [end if ends[end := key.rpartition(".")[2]] == 1 else key for key in keys]


def grouped(runs: Sequence[Run], keys: Sequence[str], *, metric: str, mode: str = "min") -> list[Group]:
    """One group for each combination of values, the best first; those without a score last.

    If tasks differ, groups are sorted within each task, because losses of different tasks do not compare.
    """
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(run.settings.get(key, ABSENT) for key in keys), []).append(run)
    groups = [Group(dict(zip(keys, values)), members, metric) for values, members in found.items()]
    sign = 1 if mode == "min" else -1
    ranks = {id(group): (group.task, group.mean is None, sign * (group.mean or 0.0)) for group in groups}
    return sorted(groups, key=lambda group: ranks[id(group)])
