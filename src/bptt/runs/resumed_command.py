"""The command line of a run that is resumed."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bptt.configuration.compose import literal, quoted
from bptt.configuration.containers import leaves
from bptt.contracts import expanded, refusal
from bptt.runs.hydra_files import TornConfigurationError, own_flags, read_overrides
from bptt.runs.loading import load_config
from bptt.runs.resumption import PATH

SHORT_FLAGS = {"-cd": "--config-dir", "-cn": "--config-name"}
MULTIRUN = {"-m", "--multirun"}
TIME = "trainer.max_time"  # a text, or a section
ABSOLUTE = re.compile("=['\"]?/")
PLAIN_PATH = re.compile(r"[\w./~:+-]*", re.ASCII)  # Hydra reads others only in quotes


def resumed_arguments(arguments: Sequence[str]) -> list[str]:
    """Replace resume=FOLDER by the command line that started the run in FOLDER; keep the other arguments."""
    given = [word.partition("=")[2] for word in arguments if word.startswith("resume=")]
    given = [re.sub(r"""^(["'])(.*)\1$""", r"\2", value) for value in given]  # Hydra's quotes
    if not given or given[-1] in ("auto", "null", ""):
        return list(arguments)
    folder = expanded(given[-1])
    if MULTIRUN & set(arguments):
        remedy = "the same command goes on with a sweep"
        raise ValueError(refusal("resume", "auto or left out in a sweep", str(folder), remedy))
    others = [word for word in arguments if not word.startswith("resume=")]
    overrides = [word for word in others if word[:1] != "-" and ("=" in word or word[:1] == "~")]
    flags = [word for word in others if word not in overrides]  # Hydra requires flags before the first override
    replaced = ("resume", *(TIME for word in overrides if key_of(word) == TIME))  # Hydra would merge two sections
    stored = [word for word in read_overrides(folder) if not key_of(word).startswith(replaced)]
    given_flags = [SHORT_FLAGS.get(word.partition("=")[0], word.partition("=")[0]) for word in flags]
    flags += [word for word in own_flags(folder) if word.partition("=")[0] not in given_flags]
    stored += own_paths(folder, besides=stored)
    return [*flags, *stored, *overrides, f"hydra.run.dir={quoted(literal(str(folder)))}", "resume=auto"]


def key_of(word: str) -> str:
    """The key of an override: trainer.max_time for ++trainer.max_time={minutes: 1}."""
    return word.partition("=")[0].lstrip("+~")


def own_paths(folder: Path, *, besides: Sequence[str]) -> list[str]:
    """Overrides for the paths of a run that are not absolute in its own overrides, `besides`, or not in them."""
    absolute = {key_of(word) for word in besides if ABSOLUTE.search(word)}
    with suppress(TornConfigurationError, OmegaConfBaseException):  # said when the run is checked
        settings: Any = OmegaConf.to_container(load_config(folder), resolve=False)
        paths = {key: value for key, value in leaves(settings) if PATH.fullmatch(key) and value}
        return [f"{key}={quoted(str(path))}" for key, path in paths.items() if key not in absolute]
    return []


def absolute_paths(arguments: Sequence[str]) -> list[str]:
    """Make paths of a task's files and of `init_from` absolute, so that a run can be resumed from any folder.

    Paths with spaces, brackets and the like are put in quotes, if there is such a file.
    """
    if MULTIRUN & set(arguments):  # an override may have several values, and they name jobs
        return list(arguments)
    absolute = []
    for word in arguments:
        key, _, value = word.partition("=")
        plain = value in ("", "null") or (value.startswith(("/", "~")) and PLAIN_PATH.fullmatch(value))
        if PATH.fullmatch(key) and not plain and (path := expanded(value)).exists():
            word = f"{key}={quoted(literal(str(path.absolute())))}"
        absolute.append(word)
    return absolute
