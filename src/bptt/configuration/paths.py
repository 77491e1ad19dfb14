"""Paths of users' files and runs in a configuration."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf


def with_absolute_paths(config: DictConfig, folder: Path) -> DictConfig:
    """A copy of a configuration with absolute paths; relative ones are taken from `folder`.

    These are the settings `path` and `…_path` of the task, and `model.init_from`. So a run finds its data from any
    folder it is resumed in.
    """
    own = config.copy()
    for group in ("task", "model"):
        section = OmegaConf.to_container(own[group], resolve=True) if isinstance(own.get(group), DictConfig) else {}
        for key, value in dict(section).items() if isinstance(section, dict) else ():
            name = str(key)
            is_path = name == "init_from" if group == "model" else name == "path" or name.endswith("_path")
            if is_path and isinstance(value, str):
                OmegaConf.update(own, f"{group}.{name}", str(folder / Path(value).expanduser()))
    return own
