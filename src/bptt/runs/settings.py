"""The settings of a run: files of its `.hydra` folder, and a copy in each of its checkpoints."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bptt.atomic_files import replace_text
from bptt.contracts import refusal
from bptt.run_folder import RunFolder

LAST_KEY = "resume"  # follows all groups in a composed configuration: a file that was cut short lacks it


class TornConfigurationError(ValueError):
    """The configuration of a run cannot be read, and no checkpoint of the run holds a copy."""


def save_settings(config: DictConfig, folder: Path, *, words: Sequence[str]) -> None:
    """Write `.hydra/` ourselves, after the folder is locked. Hydra would write it before we know the folder is free."""
    for name, content in {"config": config, "hydra": HydraConfig.instance().cfg, "overrides": words}.items():
        replace_text(RunFolder(folder).settings / f"{name}.yaml", as_yaml(content))


def as_yaml(content: Any) -> str:
    return OmegaConf.to_yaml(content if OmegaConf.is_config(content) else OmegaConf.create(content))


def is_whole(config: DictConfig) -> bool:
    """False for the configuration of a file that was cut short."""
    return LAST_KEY in config


def read_config(folder: Path) -> DictConfig:
    """The configuration in `.hydra/config.yaml`; that of the newest checkpoint if the file is missing, empty or torn.

    `TornConfigurationError` if there is neither. An incomplete configuration without a copy is returned as it is.
    """
    path = RunFolder(folder).config
    if not path.is_file():
        config, fault = (
            None,
            f"run must be the folder of a training run, got {folder}, which holds no .hydra/{path.name}",
        )
    else:
        config, fault = parsed(path)
        if config is not None and is_whole(config):
            return config
    copy = copied(folder, "config", str)
    if copy:
        restored = OmegaConf.create(copy)
        assert isinstance(restored, DictConfig)
        return restored
    if config is None:
        raise TornConfigurationError(fault)
    return config


def parsed(path: Path) -> tuple[DictConfig | None, str]:
    """The configuration in a file; or None, with a line that says why there is none."""
    try:
        config = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        return (
            None,
            f"{path} must hold the run's configuration, got a file that cannot be read: {' '.join(str(error).split())}",
        )
    if isinstance(config, DictConfig):
        return config, ""
    return None, f"{path} must hold the run's configuration, got a {type(config).__name__}"


def read_overrides(folder: Path) -> list[str]:
    """The command line that began or last resumed a run; from the newest checkpoint if its file is missing or torn."""
    path = RunFolder(folder).overrides
    with suppress(YAMLError, OmegaConfBaseException, OSError, ValueError):
        if path.read_text(encoding="utf-8").endswith("\n") and isinstance(found := OmegaConf.load(path), ListConfig):
            return [str(word) for word in found]
    copy = copied(folder, "overrides", list)
    if copy is None:
        wanted = "auto or the folder of a training run"
        raise ValueError(refusal("resume", wanted, str(folder), f"it has no readable {path.name}"))
    return [str(word) for word in copy]


def copied(folder: Path, name: str, kind: type) -> Any:
    """One of the settings in the newest whole checkpoint of a run; None if it keeps none, as those of former versions.

    name: a key of `bptt.lightning.callbacks.kept_settings.KeptSettings.settings`.
    """
    run = RunFolder(folder)
    if not run.has_checkpoints:
        return None
    from bptt.lightning.callbacks.kept_settings import KEY  # needs torch
    from bptt.lightning.checkpoint import read

    for path in (run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint):
        with suppress(ValueError):
            settings = read(path).get(KEY)
            return settings[name] if isinstance(settings, dict) and isinstance(settings.get(name), kind) else None
    return None
