"""Thinning of long curves."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MIN_POINTS = 8  # with fewer, the ends of the curve and one bin would not fit
MAX_POINTS = 256  # more than a chart can resolve; a look at two LSTM layers then takes at most 20 kB


def thinned(
    rows: NDArray[Any], *, max_points: int = MAX_POINTS, axis: Literal["log", "linear"], keep: Iterable[int] = ()
) -> NDArray[np.int64]:
    """Ascending indices of at most `max_points` (at least 8) of K points; of all points if there are no more.

    The axis is divided into bins of equal width, on a linear axis or on a logarithmic axis of 1 + index. Three points
    of each bin are kept: the first one, and those at which the first of the `rows`, shape (R, K), is smallest and
    largest; NaN is neither. The ends of the curve and the indices in `keep` are kept, too (only the first ones if there
    are too many).
    """
    length = rows.shape[-1]
    if length <= max_points:
        return np.arange(length)
    wanted = [0, length - 1, *(index for index in keep if 0 <= index < length)]
    fixed = np.unique(list(dict.fromkeys(wanted))[: max(2, max_points // 2)])
    edges = _bin_edges(length, max_points - len(fixed), axis)
    return np.union1d(fixed, _extremes(np.asarray(rows[0], dtype=np.float64), edges))


@lru_cache(maxsize=256)  # the looks at a run mostly have the same length
def _bin_edges(length: int, max_points: int, axis: Literal["log", "linear"]) -> NDArray[np.int64]:
    """Edges of the largest possible number of bins if each keeps three points, or all if it has fewer than three."""
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
    known = np.flatnonzero(~np.isnan(values))  # NaN would be sorted to the end of its bin
    ordered = known[np.lexsort((values[known], bins[known]))]
    smallest = np.unique(bins[ordered], return_index=True)[1]
    largest = np.append(smallest, len(ordered))[1:] - 1
    return np.unique(np.concatenate([edges[:-1], ordered[smallest], ordered[largest]]))
