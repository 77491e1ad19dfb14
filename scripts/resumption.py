"""Going on with a run that was interrupted, in its own folder."""

import fcntl
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from choices import leaves, resolved
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from bptt.contracts import one_of, refusal

# What may differ from the interrupted run: how long it goes on, and what is shown meanwhile; and its loggers.
LIMITS = ("trainer.max_epochs", "trainer.max_steps")
LENGTH = (*LIMITS, "trainer.max_time")
FREE = (*LENGTH, "resume", "trainer.enable_progress_bar", "sweep.dry_run", "sweep.fail_fast")


def resumed_words(words: Sequence[str]) -> list[str]:
    """A command line with resume=FOLDER as the one that began the run in FOLDER, with the other words added."""
    given = [word.partition("=")[2] for word in words if word.startswith("resume=")]
    if not given or given[-1] in ("auto", "null", ""):
        return list(words)
    folder = Path(given[-1])
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        raise ValueError(f"resume must be auto or the folder of a training run, got {folder}, where no {path.name} is")
    others = [word for word in words if not word.startswith("resume=")]
    overrides = [word for word in others if word[:1] != "-" and ("=" in word or word[:1] == "~")]
    flags = [word for word in others if word not in overrides]  # with their values, and before the first override
    own = [str(word) for word in OmegaConf.load(path) if not str(word).startswith("resume=")]
    return [*flags, *own, *overrides, f"hydra.run.dir={quoted(str(folder))}", "resume=auto"]


def quoted(text: str) -> str:
    """A value that Hydra reads as this text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def save_settings(config: DictConfig, folder: Path, *, words: Sequence[str]) -> None:
    """Write what Hydra would have written before it was known whether the folder is this run's: `.hydra`."""
    (folder / ".hydra").mkdir(exist_ok=True)
    for name, content in {"config": config, "hydra": HydraConfig.instance().cfg, "overrides": words}.items():
        OmegaConf.save(content, folder / ".hydra" / f"{name}.yaml")


def new_folder(wanted: Path) -> Path:
    """Make a folder that is nobody else's, with a number after its name where runs begin in the same second."""
    folder = wanted
    for number in count(2):
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
        folder = wanted.with_name(f"{wanted.name}_{number}")
    return folder


def check_run_folder(config: DictConfig, folder: Path) -> None:
    """Refuse a folder where the run of this configuration may not write."""
    one_of((None, "auto"), resume=config.resume)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise ValueError(f"hydra.run.dir must be a folder that can be made and written, got {folder}")
    with locked(folder):
        pass
    traces = [folder / "summary.json", *(folder / "checkpoints").glob("*.ckpt")]
    if config.resume is None and any(trace.exists() for trace in traces):
        raise ValueError(
            f"hydra.run.dir must be a new folder, got {folder}, which holds a run; name another, or say resume=auto to "
            "go on with it"
        )
    if config.resume == "auto":
        check_configuration(config, folder)


def check_configuration(config: DictConfig, folder: Path) -> bool:
    """Refuse a folder with a run of another configuration, or a shorter length than that of a run that has ended.

    Returns whether there is one, and would be as long.
    """
    saved = folder / ".hydra" / "config.yaml"
    if not saved.is_file():
        return False
    before, now = (dict(leaves(resolved(each))) for each in (OmegaConf.load(saved), config))
    for key in sorted(before | now):
        if key not in FREE and not key.startswith("logger.") and before.get(key) != now.get(key):
            raise ValueError(
                f"a run must be resumed with its own configuration, got {key}={now.get(key)} instead of "
                f"{before.get(key)} in {folder}; leave it out, or begin another run"
            )
    for key in LIMITS:
        if limit(now.get(key)) < limit(before.get(key)) and status(folder) == "completed":
            raise ValueError(
                f"{key} must be >= {before.get(key)}, with which the run in {folder} has ended, got {now.get(key)}; "
                "begin another run"
            )
    return all(before.get(key) == now.get(key) for key in LENGTH)


def limit(value: Any) -> float:
    """Of epochs or updates; Lightning has two ways to say that there is none."""
    return value if isinstance(value, int) and value >= 0 else math.inf


def status(folder: Path) -> str | None:
    """As its summary says, where it has one."""
    try:
        return str(json.loads((folder / "summary.json").read_text())["status"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def check_length(config: DictConfig, *, epochs: int) -> None:
    """Refuse to go on where a run has come further already."""
    if limit(config.trainer.max_epochs) < epochs:
        raise ValueError(refusal("trainer.max_epochs", f">= {epochs}, where the run is", config.trainer.max_epochs))


@contextmanager
def locked(folder: Path, *, key: str = "hydra.run.dir") -> Iterator[None]:
    """Keep other processes from running in the same folder, where it is there; the lock ends with this process."""
    if not folder.is_dir():
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{key} must be a folder that no other run is using, got {folder}") from None
        yield
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Whether a run, of this process or another, is using the folder."""
    try:
        with locked(folder):
            return False
    except ValueError:
        return True
