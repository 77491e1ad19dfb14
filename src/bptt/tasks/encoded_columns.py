"""Columns of a user's table as numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import setting
from bptt.tasks.categories import require_categories

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl


class EncodedColumns(NamedTuple):
    """Columns of a table as numbers.

    values: (N, C) in float64, NaN if missing. groups: for each column of the table, its indices in C.
    categories: for each column of texts, its categories; each is one column that is 0 or 1. unseen: one line about
    texts that are none of them.
    """

    values: NDArray[np.float64]
    groups: dict[str, list[int]]
    categories: dict[str, list[str]]
    unseen: str = ""


def encode(
    frame: "pl.DataFrame",
    names: Sequence[str],
    training: NDArray[np.bool_],
    categories: Mapping[str, Sequence[str]] | None = None,
    *,
    max_categories: int = 32,
    remedies: Mapping[str, str] | None = None,
) -> EncodedColumns:
    """Columns as numbers: numbers and booleans as they are, texts as one column of 0 and 1 per category.

    training: rows (N,) whose texts are the categories; other texts count as none of them. categories: those of another
    table instead. remedies: what to do about targets, which cannot be left out. Raises ValueError for columns with more
    than `max_categories` texts, infinite numbers, lists, or time stamps.
    """
    import polars as pl

    parts: list[NDArray[np.float64]] = []
    groups: dict[str, list[int]] = {}
    known: dict[str, list[str]] = {}
    unseen: list[str] = []
    width = 0
    for name in names:
        column = frame[name]
        remedy = (remedies or {}).get(name, f"leave it out: {setting('task.leave_out', name)}")
        if categories is not None and name in categories:
            spelling = {text.lower(): text for text in categories[name]} if column.dtype == pl.Boolean else {}
            column = column.cast(pl.String).replace(spelling)  # polars writes true for True
        if column.null_count() == len(column) and name not in (categories or {}):
            column = column.cast(pl.Float64)
        if column.dtype in (pl.String, pl.Categorical, pl.Enum):
            texts = column.cast(pl.String)
            if column.dtype == pl.String and name not in (categories or {}):
                require_categories(texts, remedy)
            if categories is None:
                known[name] = sorted(texts.filter(pl.Series(training)).drop_nulls().unique().to_list())
            else:
                known[name] = list(categories[name]) if name in categories else []
            if not known[name] and texts.drop_nulls().len() and categories is None and name not in (remedies or {}):
                first = texts.drop_nulls()[0]
                got = f"got none before {first!r} in row {1 + texts.to_list().index(first)}"
                raise ValueError(f"column {name!r} must have values in the training part, {got}; {remedy}")
            if not 1 <= len(known[name]) <= max_categories:
                got = f"texts with {texts.drop_nulls().n_unique()} different values, such as {texts.drop_nulls()[0]!r}"
                wanted = "a column of numbers or booleans"
                if categories is None and name not in (remedies or {}):
                    wanted += f" or at most {max_categories} different texts"
                    remedy += f", set task.max_categories={max(1, len(known[name]))}, or name it as task.series or "
                    remedy += "task.sequence if it identifies them"
                raise ValueError(f"column {name!r} must be {wanted}, got {got}; {remedy}")
            part = np.stack([(texts == category).cast(pl.Float64).to_numpy() for category in known[name]], axis=1)
            part[texts.is_null().to_numpy()] = np.nan
            others = texts.filter(texts.is_not_null() & ~texts.is_in(known[name]))
            unseen += [f"{others[0]!r} in {name} ({len(others):,} rows)"] if len(others) else []
        elif column.dtype.is_numeric() or column.dtype == pl.Boolean:
            part = column.cast(pl.Float64).to_numpy().copy()[:, None]
            if np.isinf(part).any():
                row = 1 + int(np.argmax(np.isinf(part)))
                raise ValueError(f"column {name!r} must hold finite numbers, got {part[row - 1, 0]} in row {row}")
        else:
            raise ValueError(f"column {name!r} must be numbers, booleans or texts, got {column.dtype}; {remedy}")
        groups[name] = list(range(width, width + part.shape[1]))
        width += part.shape[1]
        parts.append(part)
    values = np.concatenate(parts, axis=1) if parts else np.zeros((frame.height, 0))
    lacking = f"texts that training lacks count as no category: {', '.join(unseen)}" if unseen else ""
    return EncodedColumns(values, groups, known, lacking)
