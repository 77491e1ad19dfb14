"""Choice of the points of a long curve that are worth keeping."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 256  # more than a chart can show side by side; a look at two LSTM layers then takes at most 20 kB


def thinned(
    rows: NDArray[Any], *, max_points: int = MAX_POINTS, axis: Literal["log", "linear"], keep: Iterable[int] = ()
) -> NDArray[np.int64]:
    """Indices of at most `max_points` of K points, ascending; all of them if there are no more.

    The axis is divided into bins of equal width, on a logarithmic axis of 1 + index or on a linear one. Of each bin the
    first point stays and the two at which the first row, shape (R, K), is smallest and largest. The ends of the curve
    and the indices in `keep` stay too, the first of these if they are too many.
    """
    length = rows.shape[-1]
    if length <= max_points:
        return np.arange(length)
    wanted = [0, length - 1, *(index for index in keep if 0 <= index < length)]
    fixed = np.unique(list(dict.fromkeys(wanted))[: max(2, max_points // 2)])
    edges = _bin_edges(length, max_points - len(fixed), axis)
    # NaN is never an extreme, nor is it the end of a sorted bin.
    values = np.nan_to_num(np.asarray(rows[0], dtype=np.float64), nan=0.0)
    return np.union1d(fixed, _extremes(values, edges))


@lru_cache(maxsize=256)  # the looks at a run mostly have the same length
def _bin_edges(length: int, max_points: int, axis: Literal["log", "linear"]) -> NDArray[np.int64]:
    """Edges of as many bins as there can be if each keeps three points, or all of its own if it has fewer."""
    num_bins = max_points
    while True:
        count = num_bins + 1
        edges = np.geomspace(1, length + 1, count) - 1 if axis == "log" else np.linspace(0, length, count)
        whole = np.unique(np.round(edges).astype(np.int64))
        if num_bins == 1 or np.minimum(np.diff(whole), 3).sum() <= max_points:
            return whole
        num_bins -= max(1, num_bins // 16)


def _extremes(values: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """First, smallest and largest point of every bin [edge, next edge)."""
    bins = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    ordered = np.lexsort((values, bins))
    return np.unique([edges[:-1], ordered[edges[:-1]], ordered[edges[1:] - 1]])
