"""The grid of a comparison, read from a YAML file: tasks with a dial, cells, estimators and seeds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from bptt.configuration.containers import resolved
from bptt.contracts import at_least, one_of, refusal

FORMS = Path(__file__).with_name("forms")


class Setting(NamedTuple):
    """One position of a task's dial.

    lag: the longest dependency, in timesteps. solved: the value that the metric must reach.
    """

    lag: int
    words: tuple[str, ...]
    solved: float


class DialTask(NamedTuple):
    """A task whose dial sets the length of its dependencies; settings ascend.

    metric: a score on the validation split. higher: true if larger scores are better. reference: the lag of the setting
    at which gradients and costs are measured. cells, estimators: those that the task is tried with.
    """

    name: str
    words: tuple[str, ...]
    metric: str
    higher: bool
    reference: int
    settings: tuple[Setting, ...]
    cells: tuple[str, ...]
    estimators: tuple[str, ...]

    def at(self, lag: int) -> Setting:
        return next(each for each in self.settings if each.lag == lag)


class Plan(NamedTuple):
    """Everything that determines the results.

    timesteps: the budget of a training run, of each sequence. seconds: the budget in seconds of processor time, without
    that for data and scores; a run ends when the setting is solved or both budgets are used up. score_every: batches
    between two scores. gradient_batches: number of batches for bias and noise. gradient_moments: numbers of batches of
    training with the exact gradient before each measurement. draws: repetitions of estimators with random numbers.
    advice_updates: number of updates over which a chunk size is recommended.
    """

    form: str
    words: tuple[str, ...]
    timesteps: int
    seconds: float
    score_every: int
    gradient_batches: int
    gradient_moments: tuple[int, ...]
    draws: int
    advice_updates: int
    seeds: tuple[int, ...]
    tasks: Mapping[str, DialTask]
    cells: Mapping[str, tuple[str, ...]]
    estimators: Mapping[str, tuple[str, ...]]


class Ladder(NamedTuple):
    """All measurements of one estimator on one task with one cell. The settings of the dial are tried in order."""

    task: str
    cell: str
    estimator: str


class Advised(NamedTuple):
    """Recommendations of chunk sizes for one task with one cell, at every setting of the dial."""

    task: str
    cell: str


def read_plan(path: Path) -> Plan:
    """The plan in a YAML file, named after the file. ValueError if it is not complete."""
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise TypeError("it holds a list")
        content = resolved(loaded)
        entries = content.pop("tasks")
        for group in ("cells", "estimators"):
            content[group] = {str(name): tuple(words) for name, words in content[group].items()}
        every = {group: [*content[group]] for group in ("cells", "estimators")}
        tasks = {str(name): dial_task(str(name), {**every, **entry}) for name, entry in entries.items()}
        for group in ("words", "gradient_moments", "seeds"):
            content[group] = tuple(content[group])
        plan = Plan(form=path.stem, tasks=tasks, **content)
    except (KeyError, TypeError, AttributeError) as error:
        cause = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(refusal("form", f"a grid such as {FORMS / 'quick.yaml'}", str(path), cause)) from error
    at_least(
        1, timesteps=plan.timesteps, score_every=plan.score_every, draws=plan.draws, advice_updates=plan.advice_updates
    )
    if not plan.seeds:
        raise ValueError(refusal("seeds", "at least one seed", [], "say seeds: [1]"))
    at_least(2, gradient_batches=plan.gradient_batches, remedy="noise over batches needs two")
    for each in tasks.values():
        named: dict[str, Any] = {f"reference of {each.name}": each.reference}
        one_of([setting.lag for setting in each.settings], **named)
        for group in ("cells", "estimators"):
            for name in getattr(each, group):
                one_of([*content[group]], **{f"{group} of {each.name}": name})
    return plan


def dial_task(name: str, entry: Mapping[str, Any]) -> DialTask:
    shared = entry.get("solved")
    settings = [
        Setting(int(lag), tuple(own.get("words", ())), float(own.get("solved", shared)))
        for lag, own in entry["settings"].items()
    ]
    settings.sort(key=lambda each: each.lag)
    words, higher = tuple(entry["words"]), bool(entry["higher"])
    tried = {group: tuple(map(str, entry[group])) for group in ("cells", "estimators")}
    return DialTask(name, words, entry["metric"], higher, int(entry["reference"]), tuple(settings), **tried)


def ladders(plan: Plan) -> Iterator[Ladder]:
    """Yield all ladders, estimators last: an interrupted comparison then has complete groups of estimators."""
    for part in advised(plan):
        for estimator in plan.tasks[part.task].estimators:
            yield Ladder(*part, estimator)


def advised(plan: Plan) -> Iterator[Advised]:
    for cell in plan.cells:
        for task in plan.tasks.values():
            if cell in task.cells:
                yield Advised(task.name, cell)


def size_of_chunks(plan: Plan, estimator: str, *, length: int) -> int | None:
    """The chunk size of an estimator for sequences of `length` timesteps, which is `length` for `full`.

    None for estimators other than `full` and plain `chunked`.
    """
    settings = dict(override.split("=", 1) for override in plan.estimators[estimator])
    if settings.get("estimator") == "full":
        return length
    if set(settings) != {"estimator", "estimator.chunk_size"} or settings["estimator"] != "chunked":
        return None
    return min(length, int(settings["estimator.chunk_size"]))


def command_line(plan: Plan, part: Ladder | Advised, lag: int, seed: int) -> list[str]:
    """Overrides of one measurement, as for scripts/train.py."""
    task = plan.tasks[part.task]
    own = (*plan.cells[part.cell], *(plan.estimators[part.estimator] if isinstance(part, Ladder) else ()))
    return [*plan.words, *task.words, *task.at(lag).words, *own, f"seed={seed}"]
