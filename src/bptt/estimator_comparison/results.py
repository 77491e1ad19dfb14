"""The results of a comparison: one row for each estimator, task and cell, and rank correlations."""

import csv
import io
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bptt.atomic_files import replace_text
from bptt.estimator_comparison.advice import Advice, smallest_that_learns
from bptt.estimator_comparison.grid import Content, Key, advice_files, days_and_versions, files
from bptt.estimator_comparison.plan import Advised, Ladder, Plan, size_of_chunks
from bptt.runs.groups import mean


class Row(NamedTuple):
    """One estimator on one task with one cell.

    lags: the largest lag that each seed solved within the budget of timesteps, 0 for none. lags_seconds: within the
    budget of processor time. Larger lags than the first that no seed solved are not tried. bias, noise, batch_noise,
    cosine: means over seeds and moments, as in `bptt.estimator_comparison.gradients.compare`. microseconds, bytes: for
    a batch's gradient, divided by T. error: why there are no numbers.
    """

    task: str
    cell: str
    estimator: str
    lags: tuple[int, ...] = ()
    lags_seconds: tuple[int, ...] = ()
    bias: float | None = None
    noise: float | None = None
    batch_noise: float | None = None
    cosine: float | None = None
    microseconds: float | None = None
    bytes: float | None = None
    error: str = ""

    @property
    def lag(self) -> float:
        """Mean learnt lag over seeds."""
        return statistics.fmean(self.lags)


class Results(NamedTuple):
    """Content of the page.

    date, versions: days of the measurements, and the versions and the processor that they were made with. budgets:
    those of the plan, and the overrides of all runs. ladders: number of rows when all are complete.
    """

    form: str
    date: str
    versions: Mapping[str, str]
    budgets: Mapping[str, Any]
    ladders: int
    rows: tuple[Row, ...]
    advice: tuple[Advice, ...]


def collect(plan: Plan, folder: Path) -> Results:
    """The results of all ladders that are complete."""
    contents, advised = dict(files(plan, folder)), dict(advice_files(plan, folder))
    rows = {ladder: row for ladder, content in contents.items() if (row := row_of(plan, ladder, content)) is not None}
    complete = {ladder: contents[ladder] for ladder in rows}
    advice = tuple(each for part, content in advised.items() for each in advice_of(plan, part, content, complete))
    budgets = {"timesteps": plan.timesteps, "seconds": plan.seconds, "seeds": len(plan.seeds), "words": [*plan.words]}
    made = [each for part in (*contents.values(), *advised.values()) for each in part.values()]
    return Results(plan.form, *days_and_versions(made), budgets, len(contents), tuple(rows.values()), advice)


def row_of(plan: Plan, ladder: Ladder, content: Mapping[Key, Content]) -> Row | None:
    """The row of a ladder; None if measurements are missing."""
    task = plan.tasks[ladder.task]
    gradients = [content.get(("gradient", task.reference, seed)) for seed in plan.seeds]
    complete = [each for each in gradients if each is not None]
    if len(complete) < len(plan.seeds):
        return None
    if error := next((each["error"] for each in complete if "error" in each), ""):
        return Row(**ladder._asdict(), error=error)
    lags, lags_seconds = dict.fromkeys(plan.seeds, 0), dict.fromkeys(plan.seeds, 0)
    for setting in task.settings:
        trials = {seed: content.get(("learning", setting.lag, seed)) for seed in plan.seeds}
        for seed, trial in trials.items():
            if trial is None:
                return None
            if trial.get("solved") and trial["timesteps"] <= plan.timesteps:
                lags[seed] = setting.lag
            if trial.get("solved") and trial["seconds"] <= plan.seconds:
                lags_seconds[seed] = setting.lag
        if not any(trial and trial.get("solved") for trial in trials.values()):
            break
    moments = [moment for each in complete for moment in each["moments"]]
    quality: dict[str, Any] = {
        name: mean(moment[name] for moment in moments) for name in ("bias", "noise", "batch_noise", "cosine")
    }
    costs: dict[str, Any] = {name: mean(each[name] for each in complete) for name in ("microseconds", "bytes")}
    learnt: dict[str, Any] = {"lags": tuple(lags.values()), "lags_seconds": tuple(lags_seconds.values())}
    return Row(**ladder._asdict(), **learnt, **quality, **costs)


def advice_of(
    plan: Plan, part: Advised, content: Mapping[Key, Content], complete: Mapping[Ladder, Mapping[Key, Content]]
) -> Iterator[Advice]:
    """Recommendations at the settings of a task with a cell.

    None at a setting without those of all seeds, or unless all ladders of chunk sizes are complete.
    """
    for setting in plan.tasks[part.task].settings:
        answers = [content.get(("advice", setting.lag, seed)) for seed in plan.seeds]
        known = [each for each in answers if each is not None and "error" not in each]
        if len(known) < len(plan.seeds):
            continue
        length = known[0]["length"]
        sizes = {name: size_of_chunks(plan, name, length=length) for name in plan.tasks[part.task].estimators}
        ladders = {name: Ladder(*part, name) for name, size in sizes.items() if size is not None}
        if not all(ladder in complete for ladder in ladders.values()):
            continue
        needed = {
            (sizes[name], seed): int(trial["timesteps"])
            for name, ladder in ladders.items()
            for seed in plan.seeds
            if (trial := complete[ladder].get(("learning", setting.lag, seed), {})).get("solved")
        }
        smallest = smallest_that_learns(needed, plan.seeds)
        slower = tuple(
            needed[size, seed] / needed[length, seed] if (length, seed) in needed else None
            for seed, size in zip(plan.seeds, smallest)
        )
        recommended = tuple(int(each["recommended"]) for each in known)
        worst = tuple(each["worst"] for each in known)
        yield Advice(*part, setting.lag, length, recommended, smallest, worst, slower)


def groups(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows with numbers by task and cell."""
    by_group: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if not row.error:
            by_group.setdefault((row.task, row.cell), []).append(row)
    return by_group


def alignment_correlation(rows: Sequence[Row]) -> float | None:
    """Spearman's rank correlation of cosine and mean learnt lag over estimators."""
    known = [row for row in rows if row.cosine is not None and row.lags]
    return spearman([row.cosine or 0.0 for row in known], [row.lag for row in known])


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson correlation of the ranks, equal values with their mean rank. None with fewer than 3 values, or if all
    values of one side are equal."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return statistics.correlation(ranks(first), ranks(second))


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values with their mean rank."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def write(results: Results, folder: Path, name: str) -> None:
    """Write name.json and name.csv."""
    write_json(results, folder / f"{name}.json")
    write_csv(results, folder / f"{name}.csv")


def write_json(results: Results, path: Path) -> None:
    lists = {name: [each._asdict() for each in getattr(results, name)] for name in ("rows", "advice")}
    content = results._asdict() | lists
    replace_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Results:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    content["rows"] = tuple(Row(**with_tuples(each)) for each in content["rows"])
    content["advice"] = tuple(Advice(**with_tuples(each)) for each in content["advice"])
    return Results(**content)


def with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def write_csv(results: Results, path: Path) -> None:
    """One line for each row; the learnt lags of seeds are separated by spaces."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Row._fields)
    for row in results.rows:
        writer.writerow([" ".join(map(str, each)) if isinstance(each, tuple) else each for each in row])
    replace_text(path, text.getvalue())
