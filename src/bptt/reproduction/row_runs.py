"""The runs of published rows: existing ones with their scores, and commands of the missing ones."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bptt.atomic_files import replace_text
from bptt.configuration.compose import compose_config
from bptt.configuration.containers import resolved
from bptt.configuration.flat_settings import flat_settings
from bptt.reproduction.processes import FINISHED, Command
from bptt.reproduction.rows import Publication, Row
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.reading import Run, finite, read_run

OTHER = "of another configuration"


def run_folder(root: Path, each: Publication, row: Row, seed: int) -> Path:
    return root / each.key / row.name / f"seed_{seed}"


def chosen_rows(each: Publication, keys: Sequence[str]) -> list[Row]:
    """The rows that are named in `keys`, as KEY or KEY/ROW."""
    return [row for row in each.rows if {each.key, f"{each.key}/{row.name}"} & set(keys)]


def waiting_runs(each: Publication, root: Path, *, keys: Sequence[str]) -> dict[Path, Command]:
    """Commands of the runs that have not finished, by folder. The first seed of all rows comes first.

    ValueError if a folder contains a run with another configuration.
    """
    rows = chosen_rows(each, keys)
    if each.benchmark:
        folder = root / each.key
        command = ["benchmark.py", each.benchmark, f"out={folder}"]
        return {} if not rows or (folder / "benchmark.json").is_file() else {folder: command}
    if lacks_file(each):
        return {}
    existing = {row.name: read_runs(each, row, root) for row in rows}
    commands: dict[Path, Command] = {}
    for next_seeds in zip_longest(*([(row, seed) for seed in row.seeds] for row in rows)):
        for row, seed in filter(None, next_seeds):
            run, folder = existing[row.name].get(seed), run_folder(root, each, row, seed)
            if run is not None and run.error == OTHER:
                raise ValueError(f"{folder} must hold a run of its row, got one {OTHER}; move it away")
            if run is None or run.status not in FINISHED:
                of_seed = (
                    f"seed={seed}",
                    "resume=auto",
                    "trainer.enable_progress_bar=false",
                    f"hydra.run.dir={folder}",
                )
                commands[folder] = ["train.py", *row.overrides, *of_seed]
    return commands


def lacks_file(each: Publication) -> bool:
    """True if the runs need a file that the user has not given."""
    return bool(each.file) and not any(word.startswith(f"{each.file}=") for row in each.rows for word in row.overrides)


@cache
def expected_settings(overrides: tuple[str, ...]) -> Mapping[str, Any]:
    return flat_settings(resolved(compose_config(overrides)))


def read_runs(each: Publication, row: Row, root: Path) -> dict[int, Run]:
    """Existing runs of a row by seed, with the score if they have finished.

    A run whose settings differ from the row's, even only in the number of epochs, has status `MISSING` and error
    `OTHER`. The path of a user's file is not compared.
    """
    runs = {}
    for seed in row.seeds:
        folder = run_folder(root, each, row, seed)
        if not RunFolder(folder).summary.is_file():
            continue
        try:
            run = read_run(folder, metric=each.curve)
        except ValueError as error:
            raise ValueError(f"{folder} must hold a run that can be read, got {error}; move it away") from error
        expected = expected_settings((*row.overrides, f"seed={seed}"))
        if any(
            expected.get(key) != run.settings.get(key) for key in expected.keys() | run.settings if key != each.file
        ):
            run = run._replace(status=RunStatus.MISSING, error=OTHER)
        elif run.status.has_score:
            run = run._replace(metrics={**run.metrics, each.metric: score(folder, each.metric)})
        runs[seed] = run
    return runs


def score(folder: Path, metric: str) -> float | None:
    """Metric of a completed run, None if it is not finite. Measured once and cached in its scores.json until the run is
    extended."""
    updates, path = RunFolder(folder).read_summary()["counters"]["updates"], RunFolder(folder).scores
    cached = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"updates": None, "scores": {}}
    if cached["updates"] != updates or metric not in cached["scores"]:
        cached = {"updates": updates, "scores": measured_scores(folder, metric)}
        replace_text(path, json.dumps(cached, indent=2) + "\n")
    return finite(cached["scores"][metric])


def measured_scores(folder: Path, metric: str) -> dict[str, float]:
    """All metrics of the split of SPLIT/NAME at the best checkpoint, or a parameter at the last one."""
    from bptt.runs.evaluation import evaluate
    from bptt.runs.loading import load_run

    split, slash, _ = metric.partition("/")
    if slash:
        return evaluate(folder, split=split)
    return {metric: load_run(folder, checkpoint="last").model.get_parameter(metric).item()}
