"""Rows whose missing values are carried forward from row to row."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bptt.tasks.rows import Rows, Values, blocks


class Fill(NamedTuple):
    """Filled rows. values: (n, C); a missing value is the last one before it, NaN without one. observed: (n, C)."""

    values: Values
    observed: NDArray[np.bool_]


def carried_forward(values: Values, before: Values) -> Fill:
    """Replace missing values by the last one above, or by `before` (C,)."""
    observed = ~np.isnan(values)
    extended = np.concatenate([before[None], values])
    last = np.where(~np.isnan(extended), np.arange(len(extended))[:, None], 0)
    np.maximum.accumulate(last, axis=0, out=last)
    return Fill(np.take_along_axis(extended, last, axis=0)[1:], observed)


class FilledRows:
    """Rows whose missing values are carried forward within each series, for any range of rows.

    One pass over all rows stores the state of the fill at the start of every block, and refuses infinite values.
    """

    def __init__(self, rows: Rows, segments: Sequence[tuple[int, int]], names: Sequence[str]):
        self.rows = rows
        self._starts: list[int] = []
        states: list[Values] = []
        for start, stop in segments:
            state = np.full(rows.num_columns, np.nan)
            for first, values in blocks(rows, start, stop):
                if np.isinf(values).any():
                    row, column = np.argwhere(np.isinf(values))[0]
                    got = f"{values[row, column]} in row {first + row + 1}"
                    raise ValueError(f"column {names[column]!r} must hold finite numbers, got {got}")
                self._starts.append(first)
                states.append(state)
                state = carried_forward(values, state).values[-1]
        self._states = states

    def read(self, start: int, stop: int) -> Fill:
        """Rows start … stop − 1 of one series, filled."""
        number = bisect_right(self._starts, start) - 1
        first = self._starts[number]
        values = self.rows.read(start, stop)
        if start == first or not np.isnan(values[:1]).any():
            return carried_forward(values, self._states[number])
        fill = carried_forward(self.rows.read(first, stop), self._states[number])
        return Fill(fill.values[start - first :], fill.observed[start - first :])
