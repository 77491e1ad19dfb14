"""Resumption of an interrupted run in its own folder."""

import math
import re
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bptt.configuration.containers import leaves, resolved
from bptt.configuration.environment import check_environment, fingerprints, without_unknown_keys
from bptt.configuration.flat_settings import share_in_percent
from bptt.configuration.paths import check_folder, with_absolute_paths
from bptt.contracts import one_of, refusal
from bptt.run_folder import RunFolder, RunStatus
from bptt.runs.hydra_files import TornConfigurationError, environment_of, is_whole
from bptt.runs.loading import check_data_exist, check_references, load_config

LIMITS = ("trainer.max_epochs", "trainer.max_steps")
LENGTH = (*LIMITS, "trainer.max_time")
PATH = re.compile(r"task\.(\w+_)?path|model\.init_from")
LATER_SETTINGS = {  # settings that runs of earlier versions lack, with the values that mean what those versions did
    "estimator.across_layers": "exact",
    "estimator.burn_in": 0,
    "estimator.memory_mb": 256,
    "estimator.ragged": "auto",
    "model.block": "none",
    "task.num_symbols": 10,
    "task.reduction": "mean",
    "task.difference": False,
    "task.spacing": 1,
    "model.input_dropout": 0.0,
    "model.output_dropout": 0.0,
    "model.weight_dropout": 0.0,
    "model.locked_dropout": False,
}
# Settings that may differ from those of the interrupted run, as may its loggers.
CHANGEABLE = (*LENGTH, "resume", "trainer.enable_progress_bar", "sweep.dry_run", "sweep.fail_fast")


def new_folder(wanted: Path) -> Path:
    """Create a folder; a number is appended to its name if it exists, as for runs started in the same second."""
    folder = wanted
    for number in count(2):
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
        folder = wanted.with_name(f"{wanted.name}_{number}")
    return folder


def check_log_name(name: str) -> None:
    """Refuse a name of log files that lies in another folder. Hydra would fail after it has created the run folder."""
    if not name.strip() or "/" in name:
        raise ValueError(refusal("hydra.job.name", "a name without /", name, "the folder is hydra.run.dir"))


def check_run_folder(config: DictConfig, folder: Path, *, chosen: bool = True) -> None:
    """Refuse a folder in which the run of this configuration must not write.

    chosen: False if the folder is named after the time, so that another one is created if a run has this one.
    """
    one_of((None, "auto"), resume=config.resume)
    check_folder("hydra.run.dir", str(folder))
    run = RunFolder(folder)
    for part in (run.settings, run.checkpoints, run.curves("any").parent):
        if part.exists() and not part.is_dir():
            raise ValueError(refusal(str(part), "a folder, or not there", "a file", "move it away"))
    if chosen:
        with run.locked():
            check_contents(config, folder)


def check_contents(config: DictConfig, folder: Path) -> None:
    """Refuse a folder that holds a run, unless it is to be resumed and has the same configuration."""
    if config.resume is None and RunFolder(folder).holds_a_run:
        raise ValueError(
            f"hydra.run.dir must be a new folder, got {folder}, which holds a run; name another, or say resume=auto to "
            "resume it"
        )
    if config.resume == "auto":
        if RunFolder(folder).holds_a_run:
            check_data_exist(config, folder)
        check_configuration(config, folder)


def check_configuration(config: DictConfig, folder: Path) -> bool:
    """Refuse a folder with a run of another configuration, or with a completed run that is longer than this one.

    The path of data that have been moved may differ, as may a variable in it: then the run is resumed, and whether its
    data are the same is checked with the checkpoint. Returns True if the folder holds a run of this configuration and
    length, whose data have not moved. A folder without checkpoints, and with an empty or damaged configuration, holds
    no run. `TornConfigurationError` if its checkpoints hold no copy either.
    """
    run = RunFolder(folder)
    try:
        stored = load_config(folder)
    except TornConfigurationError:
        if run.config.is_file() and run.has_checkpoints:
            raise
        return False
    if not is_whole(stored):
        if run.has_checkpoints:
            raise TornConfigurationError(f"{run.config} must hold the run's configuration, got a part of it")
        return False
    stored = without_unknown_keys(stored)
    check_references(stored, folder)
    environment, kept = fingerprints(stored) | fingerprints(config), environment_of(folder)
    moving = {key: value for key, value in environment.items() if PATH.fullmatch(key) and key.startswith("task.")}
    check_environment(
        {key: value for key, value in environment.items() if not key.startswith((*moving, *CHANGEABLE))}, kept
    )
    before, now = settings_of(stored), settings_of(config)
    before = {key: value for key, value in LATER_SETTINGS.items() if key in now} | before
    paths = [key for key in before if PATH.fullmatch(key) and before[key] and now.get(key)]
    moved = [key for key in paths if not Path(str(before[key])).exists()]
    for key in sorted(before | now, key=lambda key: (key.count("."), key)):  # `seed` before `estimator.seed`
        was, given = (share_in_percent(key, settings.get(key)) for settings in (before, now))
        if key not in (*CHANGEABLE, *moved) and not key.startswith("logger.") and was != given:
            raise ValueError(
                f"a run must be resumed with its own configuration, got {key}={given} instead of {was} in {folder}; "
                "leave it out, say it as it was if a file of choices has changed, or start another run"
            )
    for key in LIMITS:
        if limit(now.get(key)) < limit(before.get(key)) and run.status == RunStatus.COMPLETED:
            former = before.get(key)
            wanted = f">= {former}" if limit(former) < math.inf else "without a limit (-1)"
            raise ValueError(
                f"{key} must be {wanted}, as the run in {folder} has ended, got {now.get(key)}; start another run"
            )
    have_moved = any(kept.get(key, value) != value for key, value in moving.items())
    return not have_moved and all(before.get(key) == now.get(key) for key in (*LENGTH, *moved))


def settings_of(config: DictConfig) -> dict[str, Any]:
    """All settings by their dotted keys, with absolute paths; `trainer.max_time` is one value, also as {seconds: 1}."""
    settings = resolved(with_absolute_paths(config, Path.cwd()))
    trainer = settings.get("trainer")
    if isinstance(trainer, dict) and isinstance(trainer.get("max_time"), dict):
        trainer["max_time"] = str(trainer["max_time"])
    return dict(leaves(settings))


def limit(value: Any) -> float:
    """A limit of epochs or updates; Lightning writes "no limit" as None and as −1."""
    return value if isinstance(value, int) and value >= 0 else math.inf


def check_length(config: DictConfig, *, epochs: int, updates: int) -> None:
    """Refuse to resume a run that has trained for more epochs or updates already."""
    for name, done in (("max_epochs", epochs), ("max_steps", updates)):
        if limit(config.trainer[name]) < done:
            given: Any = config.trainer[name]
            raise ValueError(refusal(f"trainer.{name}", f">= {done}, which the run has", given))


def nothing_left(run: RunFolder, config: DictConfig) -> str:
    """One line about a finished run, with the limit that makes it longer, or with the reason if none does."""
    reason = run.read_summary().get("reason")
    if reason is None:
        reason = LIMITS[0] if limit(config.trainer.max_epochs) < math.inf else LIMITS[1]
    key = re.split("[=,]", str(reason))[0]
    way = f"; {key}=… makes it longer" if key in LENGTH else f" ({reason})"
    return f"nothing is left to do: the run in {run.path} is {run.status}{way}"
