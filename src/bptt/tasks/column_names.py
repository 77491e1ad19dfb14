"""Names of columns as a user writes them in the configuration."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from bptt.contracts import refusal


def require_one_name(**named: Any) -> None:
    """Raise ValueError for the setting of a task that must name one column and is something else; None is allowed."""
    for key, given in named.items():
        if given is not None and not isinstance(given, str):
            raise ValueError(refusal(f"task.{key}", "the name of one column", given))


def require_own_names(columns: Iterable[str]) -> None:
    """Raise ValueError if two columns of the table that `predict.py` writes have the same name."""
    name, times = Counter(columns).most_common(1)[0]
    if times > 1:
        raise ValueError(
            "the table of predictions must have different names for labels, targets and predictions, got "
            f"{name!r} twice; rename a column of the file"
        )


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
