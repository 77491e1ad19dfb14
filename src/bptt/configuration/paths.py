"""Paths of users' files in a configuration."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf


def with_absolute_paths(config: DictConfig, folder: Path) -> DictConfig:
    """A copy of a configuration whose task has absolute paths; relative ones are taken from `folder`.

    These are the settings `path` and `…_path`. So a run finds its data from any folder it is resumed in.
    """
    own = config.copy()
    task = OmegaConf.to_container(own.task, resolve=True) if isinstance(own.get("task"), DictConfig) else {}
    for key, value in dict(task).items() if isinstance(task, dict) else ():
        name = str(key)
        if (name == "path" or name.endswith("_path")) and isinstance(value, str):
            OmegaConf.update(own, f"task.{name}", str(folder / Path(value).expanduser()))
    return own
