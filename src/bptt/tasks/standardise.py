"""Standardisation of columns by the statistics of the training part."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import setting

Values = NDArray[np.float64]


class Standardisation(NamedTuple):
    """x ↦ (x − mean) / deviation, column by column; both (C,)."""

    mean: Values
    deviation: Values

    def apply(self, values: Values) -> Values:
        return (values - self.mean) / self.deviation

    def undo(self, values: Values) -> Values:
        return values * self.deviation + self.mean

    def rounded(self, values: Values) -> Values:
        """Values (N, C) in their own units without the digits that are rounding errors of float32.

        8 significant ones are kept, and those above 1e-6 deviations, which are more if the mean is large.
        """
        usual = np.where(np.isfinite(values) & (values != 0), np.abs(values), 1.0)
        spread = np.where(self.deviation > 0, self.deviation, 1.0)
        decimals = np.maximum(7 - np.floor(np.log10(usual)), 6 - np.floor(np.log10(spread)))
        scale = 10.0 ** np.maximum(decimals, 0)
        return np.rint(values * scale) / scale

    def columns(self, indices: list[int]) -> "Standardisation":
        """The standardisation of some of the columns."""
        return Standardisation(self.mean[indices], self.deviation[indices])

    def plain(self) -> dict[str, Any]:
        """Mean and deviation as lists, for a checkpoint."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}


def moments(blocks: Iterable[Values]) -> tuple[Values, Values, Values]:
    """Count, mean and standard deviation (divisor N) of each column without NaN, in one pass over the blocks.

    The blocks' moments are merged as by Chan, Golub & LeVeque (1979), so a large mean costs no accuracy.
    """
    count = mean = squares = np.zeros(0)
    with np.errstate(over="ignore", invalid="ignore"):  # see `require_finite`
        for block in blocks:
            observed = ~np.isnan(block)
            own_count = observed.sum(0).astype(np.float64)
            own_mean = np.where(observed, block, 0).sum(0) / np.maximum(own_count, 1)
            own_squares = np.where(observed, (block - own_mean) ** 2, 0).sum(0)
            if not len(count):
                count, mean, squares = own_count, own_mean, own_squares
                continue
            total = np.maximum(count + own_count, 1)
            shift = own_mean - mean
            mean = mean + shift * own_count / total
            squares = squares + own_squares + shift**2 * count * own_count / total
            count = count + own_count
    return count, mean, np.sqrt(squares / np.maximum(count, 1))


def constant_within_rounding(mean: float, deviation: float) -> bool:
    """True if numbers vary by no more than the rounding errors of their moments in float64."""
    return deviation <= 1e-13 * abs(mean)


def require_finite(names: Sequence[str], deviation: Values) -> None:
    """Raise ValueError if the squares of a column's numbers overflow; standardised, they would all be 0."""
    huge = [name for name, spread in zip(names, deviation) if not np.isfinite(spread)]
    if huge:
        raise ValueError(
            f"column {huge[0]!r} must hold numbers whose squares are finite, got larger ones; divide them by a "
            f"constant, or leave it out: {setting('task.leave_out', *huge)}"
        )
