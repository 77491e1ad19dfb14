"""Measurements of a comparison, each in a small JSON file that is written once."""

import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from bptt.atomic_files import replace_text
from bptt.configuration.build import build_module
from bptt.configuration.compose import compose_config
from bptt.configuration.errors import one_line
from bptt.estimator_comparison.gradients import cost, gradient_quality
from bptt.estimator_comparison.plan import DialTask, Ladder, Plan, command_line, ladders
from bptt.estimator_comparison.training import learn
from bptt.parent_process import announced_parent, stop_with_parent

Content = dict[str, Any]


def run_grid(plan: Plan, folder: Path, *, jobs: int, report: Callable[[str], None] = print) -> list[str]:
    """Make all measurements that the folder lacks, `jobs` ladders at a time, each on one thread.

    Returns a line for every ladder that failed. With one job, all ladders run in this process.
    """
    all_ladders = list(ladders(plan))
    failed: list[str] = []
    for number, (ladder, error) in enumerate(finished(plan, all_ladders, folder, jobs=jobs), start=1):
        line = "/".join(ladder)
        if error is not None:
            line += f": {type(error).__name__}: {one_line(error)}"
            failed.append(line)
        report(f"{number} of {len(all_ladders)}: {line}")
    return failed


def finished(
    plan: Plan, all_ladders: Sequence[Ladder], folder: Path, *, jobs: int
) -> Iterator[tuple[Ladder, BaseException | None]]:
    """Run ladders and yield each when it has ended, with its error if it failed."""
    if jobs == 1:
        for ladder in all_ladders:
            try:
                run_ladder(plan, ladder, folder)
            except Exception as error:  # the other ladders still run
                yield ladder, error
            else:
                yield ladder, None
        return
    context = multiprocessing.get_context("spawn")
    with announced_parent(), ProcessPoolExecutor(jobs, mp_context=context, initializer=begin_worker) as pool:
        running = {pool.submit(run_ladder, plan, ladder, folder): ladder for ladder in all_ladders}
        for done in as_completed(running):
            yield running[done], done.exception()


def begin_worker() -> None:
    stop_with_parent()
    torch.set_num_threads(1)


def run_ladder(plan: Plan, ladder: Ladder, folder: Path) -> None:
    """Measure gradients and costs at the reference setting; train at ascending settings until no seed solves one."""
    task = plan.tasks[ladder.task]
    for seed in plan.seeds:
        measured(plan, ladder, folder, "gradient", task.reference, seed)
    for setting in task.settings:
        trials = [measured(plan, ladder, folder, "learning", setting.lag, seed) for seed in plan.seeds]
        if not any(each.get("solved") for each in trials):
            return


def measured(plan: Plan, ladder: Ladder, folder: Path, kind: str, lag: int, seed: int) -> Content:
    """The content of a measurement's file; measures first if the file is missing or has other settings.

    If the combination is not supported, for example the cell by the estimator, the content is the error.
    """
    path, settings = measurement_path(ladder, folder, kind, lag, seed), settings_of(plan, ladder, kind, lag, seed)
    content = read(path, settings)
    if content is None:
        torch.manual_seed(seed)
        try:
            content = measure(plan, plan.tasks[ladder.task], kind, lag, command_line(plan, ladder, lag, seed))
        except (ValueError, NotImplementedError) as error:  # raised for combinations that are not supported
            content = {"error": one_line(error)}
        replace_text(path, json.dumps({"settings": settings, **content}, indent=1, ensure_ascii=False) + "\n")
    return content


def measure(plan: Plan, task: DialTask, kind: str, lag: int, overrides: list[str]) -> Content:
    module = build_module(compose_config(overrides))
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


def measurement_path(ladder: Ladder, folder: Path, kind: str, lag: int, seed: int) -> Path:
    return Path(folder, *ladder, f"{kind}_lag_{lag}_seed_{seed}.json")


def settings_of(plan: Plan, ladder: Ladder, kind: str, lag: int, seed: int) -> list[Any]:
    """Everything that determines a measurement. A measurement with other settings is repeated."""
    overrides = command_line(plan, ladder, lag, seed)
    if kind == "gradient":
        return [*overrides, list(plan.gradient_moments), plan.gradient_batches, plan.draws]
    task = plan.tasks[ladder.task]
    return [*overrides, task.metric, task.at(lag).solved, plan.timesteps, plan.seconds, plan.score_every]


def read(path: Path, settings: list[Any]) -> Content | None:
    """The content of a file, or None if it is missing or has other settings."""
    if not path.is_file():
        return None
    content: Content = json.loads(path.read_text(encoding="utf-8"))
    return content if content["settings"] == settings else None


def files(plan: Plan, folder: Path) -> Iterator[tuple[Ladder, Mapping[tuple[str, int, int], Content]]]:
    """Existing measurements of each ladder, by kind, lag and seed."""
    for ladder in ladders(plan):
        task, existing = plan.tasks[ladder.task], {}
        measurements = [("gradient", task.reference), *(("learning", setting.lag) for setting in task.settings)]
        for kind, lag in measurements:
            for seed in plan.seeds:
                settings = settings_of(plan, ladder, kind, lag, seed)
                if content := read(measurement_path(ladder, folder, kind, lag, seed), settings):
                    existing[kind, lag, seed] = content
        yield ladder, existing


def report_line(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)
