"""KEY=VALUE arguments of scripts that are not Hydra applications."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import bptt.configuration.interruption  # noqa: F401  # first: for Ctrl-C while the rest is imported

# isort: split
from bptt.configuration.errors import plain_errors
from bptt.configuration.paths import check_encoding
from bptt.contracts import one_of, refusal
from bptt.lightning.terminal import lasting_output

N = TypeVar("N", int, float)
PATHS = ("run", "input", "out", "text")  # arguments of files and folders


def run_script(main: Callable[[], None], usage: str | None) -> None:
    """Run a script's main function, or print its usage for --help."""
    with plain_errors(), lasting_output():
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(usage)
        else:
            main()


def script_arguments(defaults: dict[str, str | None]) -> tuple[dict[str, Any], list[str]]:
    """Values of a script's KEY=VALUE arguments, and the other arguments of its command line.

    ValueError if a key is given twice.
    """
    values, others = dict(defaults), []
    given: set[str] = set()
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name in given:
            raise ValueError(refusal(name, "given once", word, f"it is also {values[name]}; leave one of them out"))
        if name in values:
            values[name] = os.path.expanduser(value) if name in PATHS else value  # shells leave the ~ after = alone
            given.add(name)
        else:
            others.append(word)
    return values, others


def positive_argument(kind: type[N], **named: Any) -> N:
    """Convert the one named argument to a number above 0; ValueError if that is not possible."""
    ((name, given),) = named.items()
    with suppress(ValueError):
        if (value := kind(given)) > 0:
            return value
    raise ValueError(refusal(name, f"{'a whole number' if kind is int else 'a number'} above 0", given))


RUN: dict[str, str | None] = {"run": None, "checkpoint": "best", "trust": None, "other_data": "false"}


def chosen_run(arguments: Mapping[str, Any], others: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Folder of run=FOLDER and the options of `load_run`, from the `RUN` arguments of a script.

    ValueError without run=FOLDER, or if there are `others`: overrides, although the run has its own configuration.
    """
    folder = next((word for word in others if "=" not in word and Path(word).is_dir()), None)
    if folder and not arguments["run"]:
        raise ValueError(refusal("a run", "named as run=FOLDER", folder, f"say run={folder}"))
    if others:
        raise ValueError(f"with run=FOLDER the configuration is the run's own, got {' '.join(others)}; leave it out")
    one_of(("true", "false"), other_data=arguments["other_data"])
    run = arguments["run"]
    if not run:
        raise ValueError(refusal("run", "the folder of a training run", run, "say run=FOLDER"))
    check_encoding("run", Path(run))
    options = {
        "checkpoint": arguments["checkpoint"],
        "trust": [name for name in (arguments["trust"] or "").split(",") if name],
        "other_data": arguments["other_data"] == "true",
    }
    return Path(run), options
