"""Going on with a run that was interrupted, in its own folder."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from choices import leaves, resolved
from omegaconf import DictConfig, OmegaConf

from bptt.contracts import one_of

# What may differ from the interrupted run: how long it goes on, and what is shown meanwhile.
LENGTH = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
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
    own = [str(word) for word in OmegaConf.load(path) if not str(word).startswith("resume=")]
    return [*own, *others, f"hydra.run.dir={quoted(str(folder))}", "resume=auto"]


def quoted(text: str) -> str:
    """A value that Hydra reads as this text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def check_run_folder(config: DictConfig, folder: Path) -> None:
    """Refuse a folder where the run of this configuration may not write."""
    one_of((None, "auto"), resume=config.resume)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise ValueError(f"hydra.run.dir must be a folder that can be made and written, got {folder}")
    with locked(folder):
        pass
    if config.resume is None and (folder / "summary.json").exists():
        raise ValueError(
            f"hydra.run.dir must be a new folder, got {folder}, which holds a run; name another, or say resume=auto to "
            "go on with it"
        )
    if config.resume == "auto":
        check_configuration(config, folder)


def check_configuration(config: DictConfig, folder: Path) -> bool:
    """Refuse a folder with a run of another configuration. Returns whether it is there, and would be as long."""
    saved = folder / ".hydra" / "config.yaml"
    if not saved.is_file():
        return False
    before, now = (dict(leaves(resolved(each))) for each in (OmegaConf.load(saved), config))
    for key in sorted(before | now):
        if key not in FREE and before.get(key) != now.get(key):
            raise ValueError(
                f"a run must be resumed with its own configuration, got {key}={now.get(key)} instead of "
                f"{before.get(key)} in {folder}; leave it out, or begin another run"
            )
    return all(before.get(key) == now.get(key) for key in LENGTH)


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
