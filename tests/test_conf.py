"""Every choice in conf/ composes, builds and takes a step; what the configuration does not know is refused."""

import math
import re
from functools import cache
from itertools import product, takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from support.small_tasks import TASKS, small_overrides

from bptt.configuration.build import build_module, build_trainer
from bptt.configuration.compose import CONF, compose_config
from bptt.configuration.errors import one_line
from bptt.lightning.data import TaskData
from bptt.lightning.module import BPTTModule

DEFAULTS = [next(iter(entry)) for entry in OmegaConf.load(CONF / "train.yaml").defaults if entry != "_self_"]
GROUPS = [group for group in DEFAULTS if " " not in group and group not in ("experiment", "sweeper")]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def every(*groups: str) -> list[tuple[str, str]]:
    return [(group, choice) for group in groups for choice in choices(group)]


@cache
def composed(*overrides: str) -> DictConfig:
    """A configuration to read, not to change."""
    return compose_config(overrides)


def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of a configuration by its dotted key."""
    if isinstance(config, dict) and config:
        return {key: leaf for name, part in config.items() for key, leaf in leaves(part, f"{prefix}.{name}").items()}
    return {prefix.removeprefix("."): config}


def values(config: DictConfig) -> dict[str, Any]:
    return leaves(OmegaConf.to_container(config, resolve=True))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Overrides that make each task small."""
    folder = tmp_path_factory.mktemp("data")
    return {task: small_overrides(task, folder) for task in TASKS}


def test_groups_and_choices_are_found() -> None:
    assert {"task", "model", "estimator", "optimizer", "scheduler", "clipping"} <= set(GROUPS)
    assert {"initialisation", "trainer", "callbacks", "logger"} <= set(GROUPS)
    assert all(choices(group) for group in GROUPS)


def test_every_folder_of_conf_is_a_group_of_the_configuration() -> None:
    """A choice nobody can name would be dead."""
    named = {*GROUPS, "experiment", "hydra", "sweep", "sweeper"}
    assert {path.name for path in CONF.iterdir() if path.is_dir()} <= named


@pytest.mark.parametrize(("group", "choice"), every(*GROUPS))
def test_every_choice_composes_and_changes_its_own_group_alone(group: str, choice: str) -> None:
    """But for a model, which may come with its initialisation. So all combinations compose where each choice does."""
    config = composed(f"{group}={choice}")
    assert not OmegaConf.missing_keys(config)
    own = {group, "initialisation"} if group == "model" else {group}
    resolved, default = values(config), values(composed())
    changed = {key for key in resolved.keys() | default.keys() if resolved.get(key, ...) != default.get(key, ...)}
    assert {key.partition(".")[0] for key in changed} <= own


@pytest.mark.parametrize("path", sorted((CONF / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_composes(path: Path) -> None:
    assert values(composed(f"+sweep={path.stem}"))


def test_sizes_that_a_task_knows_are_in_no_file() -> None:
    files = list(CONF.rglob("*.yaml"))
    assert len(files) > 20
    for path in files:
        assert not re.search(r"^\s*(input_size|output_size)\s*:", path.read_text(), re.MULTILINE), path


def every_pair(*groups: str) -> list[tuple[str, ...]]:
    """Triples of choices in which every pair of choices of two groups appears, if the first group is the largest."""
    first, second, third = map(choices, groups)
    length = max(len(second), len(third))
    return [
        (one, second[k % len(second)], third[(k + shift) % len(third)])
        for shift, one in enumerate(first)
        for k in range(length)
    ]


def test_every_pair_appears() -> None:
    triples = every_pair("task", "model", "estimator")
    assert {(task, model) for task, model, _ in triples} == set(product(choices("task"), choices("model")))
    assert {(task, estimator) for task, _, estimator in triples} == set(product(choices("task"), choices("estimator")))
    assert {(model, way) for _, model, way in triples} == set(product(choices("model"), choices("estimator")))


@pytest.mark.parametrize(("task", "model", "estimator"), every_pair("task", "model", "estimator"))
def test_every_pair_of_choices_builds_and_takes_a_step(
    task: str, model: str, estimator: str, small: dict[str, list[str]]
) -> None:
    config = composed(*small[task]).copy()
    network_choice = composed(f"model={model}", "model.hidden_size=6")
    config.model, config.initialisation = network_choice.model, network_choice.initialisation
    config.estimator = composed(f"estimator={estimator}").estimator
    module = build_module(config)
    network = module.model
    assert network.input_size == module.task.input_size
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = module.make_optimizer(network.parameters())
    batch = module.task.batch("train", 0)
    weight, stop = 0, 0
    state = network.initial_state(batch.batch_size)
    for update in module.estimator.updates(network, module.task.loss, batch, state):
        assert update.loss.isfinite()
        if update.weight:
            optimizer.step()
            optimizer.zero_grad()
        weight, stop = weight + update.weight, update.stop
    assert stop == batch.num_timesteps
    assert weight > 0
    assert any(not torch.equal(one, other) for one, other in zip(before, network.parameters()))


def train_two_batches(config: DictConfig, folder: Path) -> BPTTModule:
    """Train through Lightning's trainer, with a validation at the end."""
    module = build_module(config)
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    trainer = build_trainer(config, folder)
    trainer.fit(module, datamodule=TaskData(module))
    assert module.counters.batches == 2
    assert module.counters.updates >= 2
    assert math.isfinite(trainer.callback_metrics["validation/loss"])
    assert any(not torch.equal(before[name], value) for name, value in module.model.state_dict().items())
    return module


def without_default_callbacks(config: DictConfig) -> DictConfig:
    """Drop the default callbacks, because drawing their figures takes longest. They are tested separately."""
    kept = {name: callback for name, callback in config.callbacks.items() if name not in composed().callbacks}
    return DictConfig({**config, "callbacks": kept})


@pytest.fixture(scope="module")
def tiny(small: dict[str, list[str]]) -> list[str]:
    """Two batches, each of several chunks, and a validation at their end."""
    quick = ("max_epochs=1", "limit_train_batches=2", "limit_val_batches=1", "log_every_n_steps=1")
    return [
        *small["text"],
        "model.hidden_size=6",
        "estimator.chunk_size=5",
        *(f"trainer.{option}" for option in (*quick, "val_check_interval=1.0")),
    ]


@pytest.mark.parametrize(
    ("group", "choice"), every("optimizer", "scheduler", "regulariser", "clipping", "trainer", "callbacks", "logger")
)
def test_every_choice_trains(group: str, choice: str, tiny: list[str], tmp_path: Path) -> None:
    config = composed(f"{group}={choice}", *tiny)
    train_two_batches(config if group == "callbacks" else without_default_callbacks(config), tmp_path)


@pytest.mark.parametrize("choice", choices("initialisation"))
def test_every_initialisation_trains_the_models_it_is_for(choice: str, tiny: list[str], tmp_path: Path) -> None:
    """For every other model it raises an error."""
    trained: list[str] = []
    for model in choices("model"):
        config = composed(f"initialisation={choice}", f"model={model}", *tiny)
        try:
            build_module(config)
        except HydraException as refused:
            message = one_line(refused)
            assert re.search(rf"initialisation {choice} needs .* layer, got \w+; use initialisation=default", message)
        else:
            if not trained:
                train_two_batches(without_default_callbacks(config), tmp_path)
            trained.append(model)
    assert trained


def test_loggers_write_where_they_are_told(tiny: list[str], tmp_path: Path) -> None:
    """Events and tables are written to the run folder itself, not to a version folder inside it."""
    for logger, pattern in (("tensorboard", "events.out.tfevents.*"), ("csv", "metrics.csv"), ("none", "")):
        folder = tmp_path / logger
        train_two_batches(without_default_callbacks(composed(f"logger={logger}", *tiny)), folder)
        written = [path for path in folder.rglob("*") if path.is_file()]
        assert any(path in written for path in folder.glob(pattern)) if pattern else not written


def test_a_run_without_a_progress_bar(tiny: list[str], tmp_path: Path) -> None:
    train_two_batches(composed("trainer.enable_progress_bar=false", *tiny), tmp_path)


# Experiments: published results, as overrides.


def test_experiments_are_found() -> None:
    assert EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_says_its_source_and_holds_overrides_only(name: str) -> None:
    """A header with the source's year; no key that does not exist, and no value that stands already."""
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    header = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    assert re.search(r"\b(19|20)\d\d\b", header), "the header names the source with its year"

    own = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(own, dict)
    chosen = {}
    for entry in own.pop("defaults", []):
        if entry != "_self_":
            ((group, choice),) = entry.items()
            assert group.startswith("override /"), f"{group} adds a group instead of choosing in one"
            chosen[group.removeprefix("override /").partition("@")[0]] = choice
    base = values(composed(*(f"{group}={choice}" for group, choice in chosen.items())))
    result = values(composed(f"experiment={name}"))
    overrides = leaves(own) if own else {}
    assert overrides or chosen
    for key, value in overrides.items():
        inside = base.get(key.rpartition(".")[0], ...) is None  # of a section that is null by default
        assert key in base or inside, f"{key} is not a key of the configuration"
        assert inside or value != base[key], f"{key} has that value already"
    for key in result.keys() | base.keys():
        if key not in overrides and not any(each.startswith(f"{key}.") for each in overrides):
            assert result.get(key, ...) == base.get(key, ...), f"{key} changes without being named"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_builds_and_trains(name: str, small: dict[str, list[str]], tiny: list[str], tmp_path: Path) -> None:
    target = composed(f"experiment={name}").task._target_
    task = next(task for task in TASKS if composed(f"task={task}").task._target_ == target)
    shorter = [word for word in tiny if word.startswith("trainer.")]
    config = composed(f"experiment={name}", *small[task][1:], *shorter)
    train_two_batches(without_default_callbacks(config), tmp_path)


# What the configuration does not know.


@pytest.mark.parametrize("group", [*GROUPS, "experiment"])
def test_unknown_choices_are_refused(group: str) -> None:
    with pytest.raises(HydraException, match=f"Could not find '{group}/nosuch'"):
        composed(f"{group}=nosuch")


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(HydraException, match="Could not override 'tasks'"):
        composed("tasks=text")


@pytest.mark.parametrize("group", GROUPS)
def test_misspelt_keys_are_refused(group: str) -> None:
    """The last key of the default choice, with a letter too many."""
    key = list(composed()[group])[-1]
    with pytest.raises(HydraException, match=f"Could not override '{group}.{key}x'"):
        composed(f"{group}.{key}x=1")


def test_misspelt_keys_at_the_top_are_refused() -> None:
    with pytest.raises(HydraException, match="Could not override 'sed'"):
        composed("sed=1")
