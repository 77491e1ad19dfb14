"""Our results for published rows, stored in docs/results/KEY.json."""

import json
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bptt.atomic_files import replace_text
from bptt.reproduction.processes import FINISHED
from bptt.reproduction.row_runs import OTHER
from bptt.reproduction.rows import Publication, Row
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.groups import Group, outcome
from bptt.runs.reading import Run


class SeedResult(NamedTuple):
    """One run of a row. score: None if the run has none, or if it was not recorded."""

    seed: int
    status: str
    score: float | None = None


class RowResult(NamedTuple):
    """Results of one row.

    command: command line of the runs. mean, deviation: mean and standard deviation (n − 1) over the scores of completed
    runs; of a benchmark's row, mean is the median of its ratios, with low, high: their quartiles. seeds_ended: number
    of completed, stopped or diverged runs. minutes: mean wall time of these. not_counted: runs without a score, and
    why. versions: Python and packages; for a benchmark also the machine. date: UTC day of the latest run; of a
    benchmark, local day of its end. experiment: `Publication.experiment` of the runs; empty if it was not recorded.
    """

    command: str
    runs: tuple[SeedResult, ...] = ()
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    seeds_ended: int = 0
    minutes: float | None = None
    not_counted: str = ""
    versions: Mapping[str, str] = {}
    date: str = ""
    experiment: str = ""

    @property
    def diverges(self) -> bool:
        return any(run.status == RunStatus.DIVERGED for run in self.runs)


class Results(NamedTuple):
    """Content of a file: rows by name, and the file name of the figure in the same folder, if there is one."""

    rows: Mapping[str, RowResult] = {}
    figure: str = ""


def read(path: Path) -> Results:
    """Read a file. Returns no rows if it does not exist."""
    if not path.is_file():
        return Results()
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = {}
    for name, entry in content["rows"].items():
        runs = tuple(SeedResult(**run) for run in entry.pop("runs", ()))
        rows[name] = RowResult(**entry, runs=runs)
    return Results(rows, content.get("figure", ""))


def write(results: Results, path: Path) -> None:
    """Write a file without empty fields."""
    rows = {}
    for name, row in results.rows.items():
        fields = {**row._asdict(), "runs": [run._asdict() for run in row.runs]}
        rows[name] = {key: value for key, value in fields.items() if value not in (None, "", [], {})}
    content = {"rows": rows} | ({"figure": results.figure} if results.figure else {})
    replace_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def joined(each: Publication, earlier: Mapping[str, RowResult], new: Mapping[str, RowResult]) -> dict[str, RowResult]:
    """Results by row: the new or the earlier ones.

    Earlier results are kept if the row's command and the settings of its experiment are unchanged, and if there are no
    new ones or fewer seeds of them have ended. Their runs were made on another machine, or were deleted.
    """
    rows, experiment = {}, each.experiment
    for row in each.rows:
        before, now = earlier.get(row.name), new.get(row.name)
        unchanged = before and before.command == each.command(row) and before.experiment in ("", experiment)
        if before and unchanged and (now is None or before.seeds_ended > now.seeds_ended):
            rows[row.name] = before
        elif now is not None:
            rows[row.name] = now
    return rows


def from_runs(each: Publication, row: Row, runs: Mapping[int, Run]) -> RowResult:
    """Result of a row from its runs by seed. Runs with another configuration are only counted in `not_counted`."""
    own = {seed: run for seed, run in runs.items() if run.error != OTHER}
    group = Group({}, list(own.values()), each.metric)
    seeds = tuple(SeedResult(seed, *status_and_score(run, each.metric)) for seed, run in runs.items())
    seconds = [run.wall_seconds for run in own.values() if run.status in FINISHED and run.wall_seconds is not None]
    others = len(runs) - len(own)
    summaries = [RunFolder(run.folder) for run in own.values()]
    return RowResult(
        command=each.command(row),
        runs=seeds,
        mean=group.mean,
        deviation=group.deviation,
        seeds_ended=sum(seed.status in FINISHED for seed in seeds),
        minutes=round(statistics.fmean(seconds) / 60, 3) if seconds else None,
        not_counted=", ".join(filter(None, [group.left_out, f"{others} {OTHER}" if others else ""])),
        versions=versions([folder.read_summary()["versions"] for folder in summaries]),
        date=max((day(folder.summary) for folder in summaries), default=""),
        experiment=each.experiment,
    )


def status_and_score(run: Run, metric: str) -> tuple[str, float | None]:
    """Status of a run, and its metric if it is finished."""
    if run.error == OTHER:
        return OTHER, None
    return str(outcome(run, metric)), run.metrics.get(metric) if run.status.has_score else None


def from_benchmark(each: Publication, path: Path) -> dict[str, RowResult]:
    """Results by row of a benchmark's ratios with quartiles. Empty if the benchmark was not measured."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    section = content["sections"][each.benchmark]
    lines = {line["title"]: line for line in section["rows"]}
    rows_by_name = {}
    for row in each.rows:
        line = lines[row.title]
        rows_by_name[row.name] = RowResult(
            command=each.command(row),
            mean=line["ratio"],
            low=line["low"],
            high=line["high"],
            versions=content["machine"],
            date=section["date"],
        )
    return rows_by_name


def versions(by_run: list[dict[str, str]]) -> dict[str, str]:
    """Version of each package; if versions differ between runs, all of them joined by "and"."""
    names = dict.fromkeys(name for each in by_run for name in each)
    return {name: " and ".join(dict.fromkeys(each[name] for each in by_run if name in each)) for name in names}


def day(path: Path) -> str:
    """UTC day on which a file was written."""
    return datetime.fromtimestamp(path.stat().st_mtime, tz=UTC).date().isoformat()
