"""The settings of a run: files of its `.hydra` folder, and a copy in each of its checkpoints."""

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bptt.atomic_files import replace_text
from bptt.configuration.environment import fingerprints
from bptt.contracts import refusal
from bptt.run_folder import RunFolder, RunStatus

ENVIRONMENT = "environment"
DEFAULT_NAME = "train"  # of conf/train.yaml, which --config-name replaces
LAST_KEY = "resume"  # stands after all groups in a composed configuration: a truncated file lacks it


class TornConfigurationError(ValueError):
    """The configuration of a run cannot be read, and no checkpoint of the run holds a copy."""


def save_settings(config: DictConfig, folder: Path, *, overrides: Sequence[str]) -> None:
    """Write `.hydra/` ourselves, after the folder is locked. Hydra would write it before we know the folder is free.

    A finished run counts as interrupted from here on: it is made longer, and could be killed before it trains.
    """
    reopen(RunFolder(folder))
    environment = fingerprints(config)
    contents: dict[str, Any] = {ENVIRONMENT: environment} if environment else {}
    contents |= {"overrides": overrides, "hydra": HydraConfig.instance().cfg}  # resume=FOLDER reads them
    contents |= {"config": config}  # last: with it the others are of this command
    for name, content in contents.items():
        replace_text(RunFolder(folder).settings / f"{name}.yaml", as_yaml(content))


def reopen(run: RunFolder) -> None:
    """Take the end of a finished run out of its summary."""
    if run.status.is_finished:
        summary = {**run.read_summary(), "status": RunStatus.RUNNING}
        replace_text(run.summary, json.dumps(summary, indent=2) + "\n")


def as_yaml(content: Any) -> str:
    return OmegaConf.to_yaml(content if OmegaConf.is_config(content) else OmegaConf.create(content))


def environment_of(folder: Path) -> dict[str, str]:
    """Fingerprints of the values that a run has from the environment; empty if they are not known."""
    kept, _ = parse(RunFolder(folder).settings / f"{ENVIRONMENT}.yaml")
    return {} if kept is None else {str(key): str(value) for key, value in kept.items()}


def is_whole(config: DictConfig) -> bool:
    """False for the configuration of a truncated file."""
    return LAST_KEY in config


def read_config(folder: Path) -> DictConfig:
    """The configuration in `.hydra/config.yaml`, or in the newest checkpoint if the file is missing, empty or damaged.

    `TornConfigurationError` if there is neither. An incomplete configuration without a copy is returned as it is.
    """
    path = RunFolder(folder).config
    if not path.is_file():
        config = None
        fault = f"run must be the folder of a training run, got {folder}, {without_configuration(folder)}"
    else:
        config, fault = parse(path)
        if config is not None and is_whole(config):
            return config
    copy = copy_in_checkpoint(folder, "config", str)
    if copy:
        try:
            return as_configuration(copy)
        except ValueError as error:
            raise ValueError(f"the configuration in a checkpoint of {folder} cannot be read: {error}") from None
    if config is None:
        raise TornConfigurationError(fault)
    return config


def of_run(checkpoint: Path) -> str:
    """The run that a checkpoint belongs to, for an error message; empty if none is known."""
    run = checkpoint.parent.parent
    return f"; say the run's folder, {run}" if RunFolder(run).config.is_file() else ""


def without_configuration(folder: Path) -> str:
    """Clause for an error message about a folder without a configuration: what it is instead."""
    if not folder.exists():
        return "which does not exist"
    if folder.is_file():
        return f"which is a file{of_run(folder)}"
    children = sorted(folder.iterdir()) if folder.is_dir() else []
    run = next((child for child in children if RunFolder(child).config.is_file()), None)
    return f"which holds runs; say for example run={run}" if run else "which holds no .hydra/config.yaml"


def parse(path: Path) -> tuple[DictConfig | None, str]:
    """The configuration in a file, or None; with an error message if it is None."""
    try:
        return as_configuration(path.read_text(encoding="utf-8")), ""
    except (OSError, ValueError) as error:
        return None, f"{path} must hold the run's configuration, got a file that cannot be read: {error}"


def as_configuration(text: str) -> DictConfig:
    """The configuration that YAML stands for; ValueError for other text."""
    config = loaded(text)
    if not isinstance(config, DictConfig):
        raise ValueError(f"it is a {type(config).__name__}")
    return config


def loaded(text: str) -> DictConfig | ListConfig:
    """What YAML stands for; ValueError for other text, and for what no run writes: aliases, and values nested deeply.

    A few aliases that are nested stand for any number of values.
    """
    try:
        if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("it has aliases (*), which training does not write")
        return OmegaConf.load(io.StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def read_overrides(folder: Path) -> list[str]:
    """The command line that started or last resumed a run; from the newest checkpoint if its file is unreadable."""
    path = RunFolder(folder).overrides
    with suppress(OSError, ValueError):
        text = path.read_text(encoding="utf-8")
        if text.endswith("\n") and isinstance(overrides := loaded(text), ListConfig):
            words: Any = OmegaConf.to_container(overrides, resolve=False)  # ${oc.env:…} may be secret
            return [str(word) for word in words]
    copy = copy_in_checkpoint(folder, "overrides", list)
    if copy is None:
        wanted = "auto or the folder of a training run"
        fault = f"it is a file{of_run(folder)}" if folder.is_file() else f"it has no readable {path.name}"
        raise ValueError(refusal("resume", wanted, str(folder), fault))
    return [str(word) for word in copy]


def own_flags(folder: Path) -> list[str]:
    """--config-dir and --config-name of the command that started a run, if it had them and the folder is there."""
    config, _ = parse(RunFolder(folder).settings / "hydra.yaml")
    with suppress(OmegaConfBaseException, AttributeError, TypeError, KeyError):  # a file that is damaged
        hydra = OmegaConf.select(config, "hydra") if config is not None else None
        if hydra is not None:
            sources = [Path(str(each.path)) for each in hydra.runtime.config_sources if each.provider == "command-line"]
            flags = [f"--config-dir={path}" for path in sources if path.is_dir()]
            return flags + [f"--config-name={hydra.job.config_name}"] * (hydra.job.config_name != DEFAULT_NAME)
    return []


def copy_in_checkpoint(folder: Path, name: str, expected_type: type) -> Any:
    """One of the settings in the newest readable checkpoint of a run; None if the checkpoint does not hold it.

    Checkpoints of former versions hold none.

    name: a key of `bptt.lightning.callbacks.kept_settings.KeptSettings.settings`.
    """
    run = RunFolder(folder)
    if not run.has_checkpoints:
        return None
    from bptt.lightning.callbacks.kept_settings import KEY  # needs torch
    from bptt.lightning.checkpoint_files import read

    for path in (run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint):
        with suppress(ValueError):
            settings = read(path).get(KEY)
            return (
                settings[name] if isinstance(settings, dict) and isinstance(settings.get(name), expected_type) else None
            )
    return None
