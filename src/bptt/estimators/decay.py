"""Decay rate of the gradient by lag."""

import math

from jaxtyping import Float
from torch import Tensor


def decay_rate(by_lag: Float[Tensor, " K"]) -> float:
    """β, the factor from one lag to the next: log β is the least-squares slope of log φ_k against k.

    NaN if fewer than two lags are above 0.
    """
    lags = by_lag.nonzero().flatten()
    if len(lags) < 2:
        return math.nan
    heights, centred = by_lag[lags].double().log(), lags.double() - lags.double().mean()
    return math.exp(float((centred * heights).sum() / centred.square().sum()))
