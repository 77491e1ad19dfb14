"""Measurements of a comparison, each in a small JSON file that is written once."""

import json
import multiprocessing
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from bptt.atomic_files import replace_text
from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.configuration.errors import one_line
from bptt.estimator_comparison.advice import recommended
from bptt.estimator_comparison.gradients import cost, gradient_quality
from bptt.estimator_comparison.plan import Advised, DialTask, Ladder, Plan, advised, command_line, ladders
from bptt.estimator_comparison.training import learn
from bptt.parent_process import announced_parent, stop_with_parent

Content = dict[str, Any]
Part = Ladder | Advised
Key = tuple[str, int, int]


def run_grid(plan: Plan, folder: Path, *, jobs: int) -> list[str]:
    """Make all measurements that the folder lacks, `jobs` parts at a time, each on one thread.

    Prints a line to stderr for every part, and returns those of the parts that failed. With one job, all parts run in
    this process.
    """
    parts: list[Part] = [*ladders(plan), *advised(plan)]
    failed: list[str] = []
    for number, (part, error) in enumerate(finished(plan, parts, folder, jobs=jobs), start=1):
        line = "/".join(part)
        if error is not None:
            line += f": {type(error).__name__}: {one_line(error)}"
            failed.append(line)
        print(f"{number} of {len(parts)}: {line}", file=sys.stderr, flush=True)
    return failed


def finished(
    plan: Plan, parts: Sequence[Part], folder: Path, *, jobs: int
) -> Iterator[tuple[Part, BaseException | None]]:
    """Run parts and yield each when it has ended, with its error if it failed."""
    if jobs == 1:
        for part in parts:
            try:
                run_part(plan, part, folder)
            except Exception as error:  # the other parts still run
                yield part, error
            else:
                yield part, None
        return
    context = multiprocessing.get_context("spawn")
    with announced_parent(), ProcessPoolExecutor(jobs, mp_context=context, initializer=begin_worker) as pool:
        running = {pool.submit(run_part, plan, part, folder): part for part in parts}
        for done in as_completed(running):
            yield running[done], done.exception()


def begin_worker() -> None:
    stop_with_parent()
    torch.set_num_threads(1)


def run_part(plan: Plan, part: Part, folder: Path) -> None:
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
        replace_text(path, json.dumps({"settings": settings, **content}, indent=1, ensure_ascii=False) + "\n")
    return content


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
    """Everything that determines a measurement. A measurement with other settings is repeated."""
    overrides = command_line(plan, part, lag, seed)
    if kind == "advice":
        return [*overrides, plan.advice_updates]
    if kind == "gradient":
        return [*overrides, list(plan.gradient_moments), plan.gradient_batches, plan.draws]
    task = plan.tasks[part.task]
    return [*overrides, task.metric, task.at(lag).solved, plan.timesteps, plan.seconds, plan.score_every]


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
