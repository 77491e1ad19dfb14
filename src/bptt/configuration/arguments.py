"""KEY=VALUE arguments of the scripts that are no Hydra applications."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from bptt.configuration.errors import plain_errors
from bptt.contracts import one_of, refusal

N = TypeVar("N", int, float)


def run_script(main: Callable[[], None], usage: str | None) -> None:
    """Run a script's main function, or print its usage for --help."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(usage)
        return
    with plain_errors():
        main()


def script_arguments(defaults: dict[str, str | None]) -> tuple[dict[str, Any], list[str]]:
    """A script's own KEY=VALUE arguments, and the other words of its command line."""
    own, others = dict(defaults), []
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name in own:
            own[name] = value
        else:
            others.append(word)
    return own, others


def positive_argument(kind: type[N], **named: Any) -> N:
    """The one named argument as a number above 0; ValueError otherwise."""
    ((name, given),) = named.items()
    with suppress(ValueError):
        if (value := kind(given)) > 0:
            return value
    raise ValueError(refusal(name, f"{'a whole number' if kind is int else 'a number'} above 0", given))


def run_argument(run: str | None) -> Path:
    """The folder named by run=FOLDER; ValueError if none is named."""
    if not run:
        raise ValueError(refusal("run", "the folder of a training run", run, "say run=FOLDER"))
    return Path(run)


def refuse_overrides(words: Sequence[str]) -> None:
    """ValueError if settings are given beside run=FOLDER: a run keeps its own configuration."""
    if words:
        raise ValueError(f"with run=FOLDER the configuration is the run's own, got {' '.join(words)}; leave it out")


RUN: dict[str, str | None] = {"run": None, "checkpoint": "best", "trust": None, "other_data": "false"}


def loading_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """The options of `load_run` among a script's arguments."""
    one_of(("true", "false"), other_data=arguments["other_data"])
    return {
        "checkpoint": arguments["checkpoint"],
        "trust": [name for name in (arguments["trust"] or "").split(",") if name],
        "other_data": arguments["other_data"] == "true",
    }
