"""The runs of published rows: existing ones with their scores, and commands of the missing ones."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bptt.atomic_files import replace_text
from bptt.configuration.compose import compose_config
from bptt.configuration.settings import flat_settings, resolved
from bptt.reproduction.processes import FINISHED, Command
from bptt.reproduction.rows import Publication, Row
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.reading import Run, read_run

OTHER = "of another configuration"


def run_folder(root: Path, each: Publication, row: Row, seed: int) -> Path:
    return root / each.key / row.name / f"seed_{seed}"


def chosen_rows(each: Publication, words: Sequence[str]) -> list[Row]:
    """The rows selected by KEY or KEY/ROW in `words`."""
    return [row for row in each.rows if {each.key, f"{each.key}/{row.name}"} & set(words)]


def waiting_runs(each: Publication, root: Path, *, words: Sequence[str]) -> dict[Path, Command]:
    """Commands of the runs that have not finished, by folder. The first seed of all rows comes first.

    ValueError if a folder contains a run with another configuration.
    """
    rows = chosen_rows(each, words)
    if each.benchmark:
        folder = root / each.key
        command = ["benchmark.py", each.benchmark, f"out={folder}"]
        return {} if not rows or (folder / "benchmark.json").is_file() else {folder: command}
    if lacks_text(each):
        return {}
    there = {row.name: read_runs(each, row, root) for row in rows}
    found: dict[Path, Command] = {}
    for turn in zip_longest(*([(row, seed) for seed in row.seeds] for row in rows)):
        for row, seed in filter(None, turn):
            run, folder = there[row.name].get(seed), run_folder(root, each, row, seed)
            if run is not None and run.error == OTHER:
                raise ValueError(f"{folder} must hold a run of its row, got one {OTHER}; move it away")
            if run is None or run.status not in FINISHED:
                own = (f"seed={seed}", "resume=auto", "trainer.enable_progress_bar=false", f"hydra.run.dir={folder}")
                found[folder] = ["train.py", *row.words, *own]
    return found


def lacks_text(each: Publication) -> bool:
    """True if the runs need a text file that the user has not given."""
    return bool(each.text) and not any(word.startswith(f"{each.text}=") for row in each.rows for word in row.words)


@cache
def expected_settings(words: tuple[str, ...]) -> Mapping[str, Any]:
    return flat_settings(resolved(compose_config(words)))


def read_runs(each: Publication, row: Row, root: Path) -> dict[int, Run]:
    """Existing runs of a row by seed, with the score if they have finished.

    A run whose settings differ from the row's, even only in the number of epochs, has status `MISSING` and error
    `OTHER`. The path of a text file is not compared.
    """
    found = {}
    for seed in row.seeds:
        folder = run_folder(root, each, row, seed)
        if not RunFolder(folder).summary.is_file():
            continue
        run = read_run(folder, metric=each.curve)
        wanted = expected_settings((*row.words, f"seed={seed}"))
        if any(wanted.get(key) != run.settings.get(key) for key in wanted.keys() | run.settings if key != each.text):
            run = run._replace(status=RunStatus.MISSING, error=OTHER)
        elif run.status.has_score:
            run = run._replace(metrics={**run.metrics, each.metric: score(folder, each.metric)})
        found[seed] = run
    return found


def score(folder: Path, metric: str) -> float:
    """Metric of a completed run. Measured once and cached in its scores.json until the run is extended."""
    updates, path = RunFolder(folder).read_summary()["counters"]["updates"], RunFolder(folder).scores
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"updates": None, "scores": {}}
    if kept["updates"] != updates or metric not in kept["scores"]:
        kept = {"updates": updates, "scores": measured(folder, metric)}
        replace_text(path, json.dumps(kept, indent=2) + "\n")
    return float(kept["scores"][metric])


def measured(folder: Path, metric: str) -> dict[str, float]:
    from bptt.runs.evaluation import evaluate
    from bptt.runs.loading import load_run

    split, slash, _ = metric.partition("/")
    if slash:
        return evaluate(folder, split=split)
    return {metric: load_run(folder, checkpoint="last").model.get_parameter(metric).item()}
