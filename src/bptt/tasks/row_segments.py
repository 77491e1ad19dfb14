"""Parts of a table's rows: series and episodes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bptt.tasks.identifiers import require_names


def episodes(marks: Any, *, last: bool) -> list[tuple[int, int]]:
    """First and last + 1 row of the episodes, whose first rows, or `last` rows, a column marks by true or 1."""
    numeric = marks.dtype.is_numeric() or str(marks.dtype) in ("Boolean", "Null")
    values = marks.cast(float).fill_null(0).to_numpy() if numeric else np.full(1, np.nan)
    if not np.isin(values, (0, 1)).all():
        key = "reset_after" if last else "reset_at"
        raise ValueError(f"task.{key}: column {marks.name!r} must hold 0 and 1, or true and false")
    borders = [0, *(1 + np.flatnonzero(values[:-1] if last else values[1:])).tolist(), len(values)]
    return list(pairwise(borders))


def any_shorter(sizes: Sequence[int], before: Sequence[int] | int) -> bool:
    """True if a series has fewer rows than before, or there are others, so that the parts of one begin earlier.

    before: in checkpoints of earlier versions one number, that of all rows.
    """
    if isinstance(before, int):
        return sum(sizes) < before
    return len(sizes) != len(before) or any(now < then for now, then in zip(sizes, before))


def by_series(frame: Any, series: str | None) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """The order of rows that brings each series together, and first and last + 1 row of each."""
    if series is None:
        return np.arange(frame.height), [(0, frame.height)]
    column = frame[series]
    if column.null_count():
        row = 1 + int(column.is_null().arg_max() or 0)
        raise ValueError(f"task.series: column {series!r} must name a series in every row, got none in row {row}")
    require_names(column)
    numbers = column.rank("dense").to_numpy()
    order = np.argsort(numbers, kind="stable")
    borders = [0, *(1 + np.flatnonzero(np.diff(numbers[order]))).tolist(), len(order)]
    return order, list(pairwise(borders))
