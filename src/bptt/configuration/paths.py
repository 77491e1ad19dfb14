"""Paths of users' files and runs in a configuration."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bptt.configuration.compose import literal
from bptt.configuration.environment import REFERENCE
from bptt.contracts import expanded, refusal


def with_absolute_paths(config: DictConfig, folder: Path) -> DictConfig:
    """A copy of a configuration with absolute paths; relative ones are relative to `folder`.

    The paths are `path` and `…_path` of the task, and `model.init_from`. A run can then be resumed from any working
    directory. References to environment variables stay in them.
    """
    absolute = config.copy()
    for group in ("task", "model"):
        if not isinstance(absolute.get(group), DictConfig):
            continue
        written: Any = OmegaConf.to_container(absolute[group], resolve=False)
        section: Any = OmegaConf.to_container(absolute[group], resolve=True)
        for name, value in section.items():
            is_path = name == "init_from" if group == "model" else name == "path" or str(name).endswith("_path")
            if is_path and isinstance(value, str):
                path = literal(str(folder / expanded(value)))
                if REFERENCE.search(str(written[name])):
                    path = written[name] if value.startswith(("/", "~")) else f"{literal(str(folder))}/{written[name]}"
                OmegaConf.update(absolute, f"{group}.{name}", path)
    return absolute


def check_folder(key: str, name: str) -> None:
    """Refuse what is no folder and cannot become one.

    An empty name would be the current folder, and shells do not expand ~ inside a word.
    """
    if not name.strip() or name.startswith("~"):
        raise ValueError(refusal(key, "the name of a folder, without ~", name, "such as $HOME/runs/NAME"))
    existing = next(path for path in (Path(name), *Path(name).absolute().parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise ValueError(f"{key} must be a folder that can be created and written, got {name}")


def check_encoding(name: str, path: Path) -> None:
    """Refuse a path that is not UTF-8: it cannot be written to a figure, a table or a page."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="replace")
        raise ValueError(refusal(name, "a path in UTF-8", shown, "rename it")) from None
