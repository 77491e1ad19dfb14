"""How fast the gradient changes from lag to lag."""

import math

from jaxtyping import Float
from torch import Tensor


def decay_rate(by_lag: Float[Tensor, " K"]) -> float:
    """β, the factor by which the gradient changes from lag to lag: log β is the least-squares slope of log φ_k over k.

    NaN with fewer than two lags above zero.
    """
    lags = by_lag.nonzero().flatten()
    if len(lags) < 2:
        return math.nan
    heights, centred = by_lag[lags].double().log(), lags.double() - lags.double().mean()
    return math.exp(float((centred * heights).sum() / centred.square().sum()))
