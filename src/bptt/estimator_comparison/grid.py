"""Measurements of a comparison, each in a small JSON file that is written once."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bptt.atomic_files import replace_text
from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.configuration.errors import one_line
from bptt.estimator_comparison.advice import recommended
from bptt.estimator_comparison.gradients import MEASURES, cost, gradient_quality
from bptt.estimator_comparison.plan import Advised, DialTask, Ladder, Plan, advised, command_line, ladders
from bptt.estimator_comparison.training import learn
from bptt.estimator_comparison.workers import finished
from bptt.lightning.callbacks.summary import versions

Content = dict[str, Any]
Part = Ladder | Advised
Key = tuple[str, int, int]


def run_grid(plan: Plan, folder: Path, *, jobs: int) -> list[str]:
    """Make all measurements that the folder lacks, `jobs` parts at a time, each on one thread.

    Prints a line to stderr for every part, and returns those of the parts that failed.
    """
    parts: list[Part] = [*ladders(plan), *advised(plan)]
    work, failed = partial(run_part, plan, folder), list[str]()
    for number, (part, error) in enumerate(finished(work, parts, jobs=jobs), start=1):
        line = "/".join(part)
        if error is not None:
            line += f": {type(error).__name__}: {one_line(error)}"
            failed.append(line)
        print(f"{number} of {len(parts)}: {line}", file=sys.stderr, flush=True)
    return failed


def run_part(plan: Plan, folder: Path, part: Part) -> None:
    if isinstance(part, Ladder):
        run_ladder(plan, part, folder)
        return
    for setting in plan.tasks[part.task].settings:
        for seed in plan.seeds:
            measured(plan, part, folder, "advice", setting.lag, seed)


def run_ladder(plan: Plan, ladder: Ladder, folder: Path) -> None:
    """Measure gradients and costs at the reference setting; train at ascending settings until no seed solves one."""
    task = plan.tasks[ladder.task]
    for seed in plan.seeds:
        measured(plan, ladder, folder, "gradient", task.reference, seed)
    for setting in task.settings:
        trials = [measured(plan, ladder, folder, "learning", setting.lag, seed) for seed in plan.seeds]
        if not any(each.get("solved") for each in trials):
            return


def measured(plan: Plan, part: Part, folder: Path, kind: str, lag: int, seed: int) -> Content:
    """The content of a measurement's file; measures first if the file is missing or has other settings.

    If the combination is not supported, for example the cell by the estimator, the content is the error.
    """
    path, settings = measurement_path(part, folder, kind, lag, seed), settings_of(plan, part, kind, lag, seed)
    content = read(path, settings)
    if content is None:
        torch.manual_seed(seed)
        try:
            content = measure(plan, plan.tasks[part.task], kind, lag, command_line(plan, part, lag, seed))
        except (ValueError, NotImplementedError) as error:  # raised for combinations that are not supported
            content = {"error": one_line(error)}
        content |= {"settings": settings, "date": datetime.now(UTC).date().isoformat(), "versions": machine()}
        replace_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return content


def machine() -> dict[str, str]:
    """Versions of Python and the libraries, and the processor."""
    return versions() | {"processor": f"{platform.machine()}, {os.cpu_count()} cores"}


def days_and_versions(made: Iterable[Content]) -> tuple[str, dict[str, str]]:
    """First and last day of measurements, and all versions that they were made with; empty if none is recorded."""
    recorded = sorted((each for each in made if "date" in each), key=lambda each: str(each["date"]))
    days = dict.fromkeys(each["date"] for each in (*recorded[:1], *recorded[-1:]))
    names = dict.fromkeys(name for each in recorded for name in each["versions"])
    versions_of = {name: [each["versions"][name] for each in recorded if name in each["versions"]] for name in names}
    return " to ".join(days), {name: " and ".join(dict.fromkeys(values)) for name, values in versions_of.items()}


def measure(plan: Plan, task: DialTask, kind: str, lag: int, overrides: list[str]) -> Content:
    module = build_module(compose_config(overrides))
    if kind == "advice":
        return recommended(module, num_updates=plan.advice_updates)
    if kind == "gradient":
        costs = cost(module)
        moments = gradient_quality(
            module, moments=plan.gradient_moments, num_batches=plan.gradient_batches, num_draws=plan.draws
        )
        return {**costs, "moments": moments}
    bound = task.at(lag).solved

    def solved(score: float) -> bool:
        return score >= bound if task.higher else score <= bound

    return learn(
        module,
        metric=task.metric,
        solved=solved,
        timesteps=plan.timesteps,
        seconds=plan.seconds,
        score_every=plan.score_every,
    )


def measurement_path(part: Part, folder: Path, kind: str, lag: int, seed: int) -> Path:
    return Path(folder, *part, f"{kind}_lag_{lag}_seed_{seed}.json")


def settings_of(plan: Plan, part: Part, kind: str, lag: int, seed: int) -> list[Any]:
    """The plan's settings of a measurement, and the version of the measures. Other settings are measured again.

    Not included are the defaults of conf/ and the content of a user's file: when these change, use another folder.
    """
    overrides = command_line(plan, part, lag, seed)
    if kind == "advice":
        return [*overrides, plan.advice_updates]
    if kind == "gradient":
        return [*overrides, list(plan.gradient_moments), plan.gradient_batches, plan.draws, MEASURES]
    task = plan.tasks[part.task]
    solved = (task.metric, task.higher, task.at(lag).solved)
    return [*overrides, *solved, plan.timesteps, plan.seconds, plan.score_every]


def read(path: Path, settings: list[Any]) -> Content | None:
    """The content of a file, or None if it is missing or has other settings."""
    if not path.is_file():
        return None
    content: Content = json.loads(path.read_text(encoding="utf-8"))
    return content if content["settings"] == settings else None


def files(plan: Plan, folder: Path) -> Iterator[tuple[Ladder, Mapping[Key, Content]]]:
    """Existing measurements of each ladder, by kind, lag and seed."""
    for ladder in ladders(plan):
        task = plan.tasks[ladder.task]
        wanted = [("gradient", task.reference), *(("learning", setting.lag) for setting in task.settings)]
        yield ladder, existing(plan, ladder, folder, wanted)


def advice_files(plan: Plan, folder: Path) -> Iterator[tuple[Advised, Mapping[Key, Content]]]:
    """Existing recommendations for each task and cell, by kind, lag and seed."""
    for part in advised(plan):
        yield part, existing(plan, part, folder, [("advice", each.lag) for each in plan.tasks[part.task].settings])


def existing(plan: Plan, part: Part, folder: Path, wanted: Sequence[tuple[str, int]]) -> Mapping[Key, Content]:
    """Those of the wanted measurements of a part that exist with the plan's settings."""
    contents = {}
    for kind, lag in wanted:
        for seed in plan.seeds:
            path = measurement_path(part, folder, kind, lag, seed)
            if content := read(path, settings_of(plan, part, kind, lag, seed)):
                contents[kind, lag, seed] = content
    return contents
