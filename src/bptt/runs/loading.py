"""Finished runs, rebuilt from their folders with trained weights."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bptt.configuration.build import PARTS, build_module
from bptt.configuration.compose import literal
from bptt.configuration.containers import resolved, with_texts
from bptt.configuration.environment import without_unknown_keys
from bptt.configuration.sections import locate
from bptt.contracts import expanded, one_of, refusal
from bptt.lightning.data_identity import same_data
from bptt.lightning.terminal import say
from bptt.run_folder import RunFolder
from bptt.runs.hydra_files import TornConfigurationError, read_config

if TYPE_CHECKING:
    from bptt.lightning.module import BPTTModule

# Targets in configurations of runs that were written before these classes and functions had their present names.
FORMER_TARGETS = {
    "bptt.lightning.module.Clipping": "bptt.lightning.clipping.Clipping",
    "bptt.lightning.module.Schedule": "bptt.lightning.module.LearningRateSchedule",
    "bptt.lightning.checkpoint.Checkpoint": "bptt.lightning.callbacks.checkpoint.Checkpoint",
    "bptt.lightning.schedules.constant": "bptt.lightning.learning_rates.constant",
    "bptt.lightning.schedules.decay_after": "bptt.lightning.learning_rates.decay_after",
}
# Modules from which the configuration in a run folder may instantiate classes, and those whose functions it may call.
CLASSES = ("bptt.layers", "bptt.model", "bptt.tasks", "bptt.estimators", "bptt.lightning", "torch.optim", "lightning")
FUNCTIONS = ("bptt.layers.initialise", "bptt.lightning.learning_rates")


def load_config(folder: Path) -> DictConfig:
    """The configuration of a run, with present names; ValueError if the folder holds none."""
    config = read_config(folder)
    for key, target in targets(OmegaConf.to_container(config, resolve=False)):
        if target in FORMER_TARGETS:
            OmegaConf.update(config, key, FORMER_TARGETS[target])
    return config


def targets(part: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the value of every `_target_` at any depth, in lists as well."""
    if isinstance(part, Mapping):
        for name, inner in part.items():
            inner_key = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield inner_key, str(inner)
            yield from targets(inner, inner_key)
    elif isinstance(part, list):
        for number, inner in enumerate(part):
            yield from targets(inner, f"{key}[{number}]")


def check_targets(config: DictConfig, *, trust: Sequence[str] = ()) -> None:
    """Refuse to instantiate anything but this project's parts, torch's optimizers and Lightning's classes.

    A run folder may come from somebody else, and Hydra calls whatever `_target_` names. ValueError for other targets,
    unless their package is in `trust`. References ${…} must be resolvable.
    """
    for key, target in targets(resolved(config)):
        if target == "None" or any(target == name or target.startswith(f"{name}.") for name in trust):
            continue
        within = target.startswith(tuple(f"{name}." for name in (*CLASSES, *FUNCTIONS)))
        found = locate(target) if within else None  # bptt.tasks.download.os.remove, for example, is in another module
        module = f"{getattr(found, '__module__', '')}."
        modules = CLASSES if isinstance(found, type) else FUNCTIONS
        if not module.startswith(tuple(f"{name}." for name in modules)):
            remedy = f"if you know where the folder comes from, say trust={target.partition('.')[0]}"
            if within and found is None:
                remedy = "this version has no such part"
            raise ValueError(refusal(key, "a part of bptt, torch.optim or lightning", target, remedy))


def trusted_config(folder: Path, *, trust: Sequence[str] = ()) -> DictConfig:
    """The configuration of a run to build objects from: resolved, with targets that `check_targets` allows.

    A reference that is resolved later, from a changed configuration, could name another target. So none is left. Its
    loggers, which are not built, are left out once what refers to them is resolved.
    """
    config = without_unknown_keys(load_config(folder))
    check_references(config, folder)
    settings = resolved(config)
    if "logger" in settings:
        settings["logger"] = {}
    trusted = OmegaConf.create(with_texts(settings, literal))
    if resolved(trusted) != settings:
        raise ValueError(refusal(str(RunFolder(folder).config), "one whose texts stay as they are", "${ in them"))
    check_targets(trusted, trust=trust)
    return trusted


def checkpoint_path(folder: Path, checkpoint: str) -> Path:
    """The file of a run's `best` or `last` checkpoint."""
    one_of(("best", "last"), checkpoint=checkpoint)
    run = RunFolder(folder)
    return run.best_checkpoint if checkpoint == "best" else run.last_checkpoint


def check_parts(config: DictConfig, folder: Path) -> None:
    """`TornConfigurationError` if the configuration of the run in a folder lacks a part of the module."""
    lacking = next((part for part in PARTS if part not in config), None)
    if lacking is not None:
        got = f"got a part of it without {lacking}, and no checkpoint with a copy"
        raise TornConfigurationError(f"{RunFolder(folder).config} must hold the run's configuration, {got}")


def check_data_exist(config: DictConfig, folder: Path) -> None:
    """ValueError if the file with the data of the run in a folder is gone."""
    data = config.task.get("path")
    if isinstance(data, str) and not expanded(data).exists():
        remedy = f"if it was moved, say train.py {shlex.quote(f'resume={folder}')} task.path=NEW"
        raise ValueError(refusal("task.path of the run", "an existing file", data, remedy))


def check_references(config: DictConfig, folder: Path) -> None:
    """ValueError if a value ${…} of the configuration in a run folder refers to a setting that it lacks."""
    try:
        resolved(config)
    except OmegaConfBaseException as error:
        raise ValueError(f"{RunFolder(folder).config} cannot be read: {str(error).splitlines()[0]}") from error


def load_run(folder: Path, *, checkpoint: str, trust: Sequence[str] = (), other_data: bool = False) -> "BPTTModule":
    """The module of a finished run with the weights of its `best` or `last` checkpoint.

    ValueError if the data have changed since training, unless `other_data` is true. Then they are divided into parts as
    usual, but encoded as those of training were, by tasks that can.
    """
    from bptt.lightning.checkpoint_content import KEY
    from bptt.lightning.checkpoint_files import load_weights, read
    from bptt.tasks.base import DIVIDED

    check_parts(load_config(folder), folder)
    config = trusted_config(folder, trust=trust)
    check_data_exist(config, folder)
    path = checkpoint_path(folder, checkpoint)
    recorded = read(path)[KEY] if other_data else {}
    encoding = recorded.get("encoding")
    reads_parts = getattr(locate(str(config.task._target_)), "reads_parts", False)
    as_trained = {**encoding, DIVIDED: True} if encoding and reads_parts else None
    module = build_module(config, initial_weights=False, encoding=as_trained)
    load_weights(module, path, other_data=other_data)
    if encoding and not reads_parts and not same_data(recorded.get("data"), module.task.identity):
        target = str(config.task._target_)
        name = target.rpartition(".")[2]
        say(f"changed data have another encoding than in training: {name} needs reads_parts = True for it", error=True)
    return module


def say_how_divided(module: "BPTTModule", folder: Path, checkpoint: str) -> None:
    """Print one line if a part of a run's changed data may contain data of another part in training."""
    from bptt.lightning.checkpoint_content import KEY
    from bptt.lightning.checkpoint_files import read

    if not module.task.divided_otherwise:
        return
    if not same_data(read(checkpoint_path(folder, checkpoint))[KEY].get("data"), module.task.identity):
        remedy = "input=FILE takes a file of its own"
        say(f"changed data are divided again, so the parts may contain training data; {remedy}", error=True)
