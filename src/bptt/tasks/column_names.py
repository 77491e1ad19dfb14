"""Names of columns as a user writes them in the configuration."""

from collections.abc import Sequence
from typing import Any

from bptt.contracts import refusal


def require_one_name(**named: Any) -> None:
    """Raise ValueError for the setting of a task that must name one column and is something else; None is allowed."""
    for key, given in named.items():
        if given is not None and not isinstance(given, str):
            raise ValueError(refusal(f"task.{key}", "the name of one column", given))


def as_names(key: str, given: Any) -> list[str] | None:
    """Names of columns that a user wrote: one, or a list; None for none."""
    if given is None:
        return None
    if isinstance(given, str | int) and not isinstance(given, bool):
        return [str(given)]
    if isinstance(given, Sequence) and all(isinstance(each, str | int) for each in given):
        if len(set(map(str, given))) < len(given):
            raise ValueError(refusal(key, "different columns", list(given)))
        return [str(each) for each in given]
    raise ValueError(refusal(key, "the name of a column or a list of names", given))
