"""Resumption of an interrupted run in its own folder."""

import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bptt.configuration.paths import with_absolute_paths
from bptt.configuration.settings import leaves, resolved
from bptt.contracts import one_of, refusal
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.loading import load_config
from bptt.runs.settings import TornConfigurationError, is_whole, read_overrides

# Settings that may differ from those of the interrupted run: its length, what is displayed, and its loggers.
LIMITS = ("trainer.max_epochs", "trainer.max_steps")
LENGTH = (*LIMITS, "trainer.max_time")
PATH = re.compile(r"task\.(\w+_)?path|model\.init_from")
ADDED = {  # settings that the first runs do not have, with the values that stand for what they did
    "estimator.across_layers": "exact",
    "estimator.burn_in": 0,
    "estimator.memory_mb": 256,
    "estimator.ragged": "auto",
    "model.block": "none",
    "task.reduction": "mean",
    "task.difference": False,
    "task.spacing": 1,
    "model.input_dropout": 0.0,
    "model.output_dropout": 0.0,
    "model.weight_dropout": 0.0,
    "model.locked_dropout": False,
}
FREE = (*LENGTH, "resume", "trainer.enable_progress_bar", "sweep.dry_run", "sweep.fail_fast")


def resumed_words(words: Sequence[str]) -> list[str]:
    """Expand resume=FOLDER to the command line that started the run in FOLDER, with the other words added."""
    given = [word.partition("=")[2] for word in words if word.startswith("resume=")]
    if not given or given[-1] in ("auto", "null", ""):
        return list(words)
    folder = Path(given[-1])
    others = [word for word in words if not word.startswith("resume=")]
    overrides = [word for word in others if word[:1] != "-" and ("=" in word or word[:1] == "~")]
    flags = [word for word in others if word not in overrides]  # Hydra wants its flags before the first override
    own = [word for word in read_overrides(folder) if not word.startswith("resume=")]
    return [*flags, *own, *overrides, f"hydra.run.dir={quoted(str(folder))}", "resume=auto"]


def absolute_paths(words: Sequence[str]) -> list[str]:
    """Name the files of a task and the run of `init_from` by absolute paths, so that a run goes on from any folder."""
    if "-m" in words or "--multirun" in words:  # where several values stand in a word, and jobs are named by them
        return list(words)
    found = []
    for word in words:
        key, _, value = word.partition("=")
        relative = bool(PATH.fullmatch(key)) and value not in ("", "null") and not value.startswith(("/", "~"))
        found.append(f"{key}={quoted(str(Path(value).absolute()))}" if relative and Path(value).exists() else word)
    return found


def quoted(text: str) -> str:
    """A text in quotes, so that Hydra's grammar reads it as one value."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def new_folder(wanted: Path) -> Path:
    """Create a folder; a number is appended to its name if it exists, as for runs started in the same second."""
    folder = wanted
    for number in count(2):
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
        folder = wanted.with_name(f"{wanted.name}_{number}")
    return folder


def check_run_folder(config: DictConfig, folder: Path) -> None:
    """Refuse a folder in which the run of this configuration must not write."""
    one_of((None, "auto"), resume=config.resume)
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise ValueError(f"hydra.run.dir must be a folder that can be created and written, got {folder}")
    with RunFolder(folder).locked():
        check_contents(config, folder)


def check_contents(config: DictConfig, folder: Path) -> None:
    """Refuse a folder that holds a run, unless it is to be resumed and has the same configuration."""
    if config.resume is None and RunFolder(folder).holds_a_run:
        raise ValueError(
            f"hydra.run.dir must be a new folder, got {folder}, which holds a run; name another, or say resume=auto to "
            "resume it"
        )
    if config.resume == "auto":
        check_configuration(config, folder)


def check_configuration(config: DictConfig, folder: Path) -> bool:
    """Refuse a folder with a run of another configuration, or a shorter length than that of a run that has ended.

    Returns True if the folder holds a run of this configuration and length. A folder without checkpoints whose
    configuration is empty or torn holds no run. `TornConfigurationError` if there are checkpoints without a copy of it.
    """
    run = RunFolder(folder)
    try:
        own = load_config(folder)
    except TornConfigurationError:
        if run.config.is_file() and run.has_checkpoints:
            raise
        return False
    if not is_whole(own):
        if run.has_checkpoints:
            raise TornConfigurationError(f"{run.config} must hold the run's configuration, got a part of it")
        return False
    before = dict(leaves(resolved(with_absolute_paths(own, Path.cwd()))))
    now = dict(leaves(resolved(with_absolute_paths(config, Path.cwd()))))
    before = {key: value for key, value in ADDED.items() if key in now} | before
    for key in sorted(before | now):
        if key not in FREE and not key.startswith("logger.") and before.get(key) != now.get(key):
            raise ValueError(
                f"a run must be resumed with its own configuration, got {key}={now.get(key)} instead of "
                f"{before.get(key)} in {folder}; leave it out, or start another run"
            )
    for key in LIMITS:
        if limit(now.get(key)) < limit(before.get(key)) and run.status == RunStatus.COMPLETED:
            raise ValueError(
                f"{key} must be >= {before.get(key)}, with which the run in {folder} has ended, got {now.get(key)}; "
                "start another run"
            )
    return all(before.get(key) == now.get(key) for key in LENGTH)


def limit(value: Any) -> float:
    """A limit of epochs or updates; Lightning writes "no limit" as None and as −1."""
    return value if isinstance(value, int) and value >= 0 else math.inf


def check_length(config: DictConfig, *, epochs: int) -> None:
    """Refuse to resume a run that has trained for more epochs already."""
    if limit(config.trainer.max_epochs) < epochs:
        raise ValueError(refusal("trainer.max_epochs", f">= {epochs}, which the run has", config.trainer.max_epochs))
