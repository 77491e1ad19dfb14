"""The horizon: the largest lag that the gradient reaches, with its confidence interval."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 0.01  # share of its largest value that the gradient still has at the horizon
QUANTILE = 1.96  # of the normal distribution, for an interval of about 95 %


class Band(NamedTuple):
    """A curve over timesteps or lags, (T,) each: median over sequences, 5th and 95th percentile."""

    median: Float[Tensor, " T"]
    low: Float[Tensor, " T"]
    high: Float[Tensor, " T"]


class Horizon(NamedTuple):
    """The lag to which the gradient reaches, in timesteps, with an interval of about 95 %.

    capped: the gradient still reaches the largest lag that was measured, so the horizon may lie beyond it.
    """

    lag: int
    low: int
    high: int
    capped: bool

    def __str__(self) -> str:
        """For example "23" or "≥ 29"."""
        return f"≥ {self.lag}" if self.capped else str(self.lag)

    @property
    def interval(self) -> str:
        """The lag with its interval, for example "23 (20 to 27)"."""
        return str(self) if self.low == self.high else f"{self} ({self.low} to {self.high})"


def band(norms: Float[Tensor, "T B"]) -> Band:
    """Median, 5th and 95th percentile over sequences; NaN is left out."""
    shares = torch.tensor([0.5, 0.05, 0.95], dtype=norms.dtype, device=norms.device)
    return Band(*torch.nanquantile(norms, shares, dim=1))


def horizon(by_lag: Float[Tensor, "K *S"], *, num_losses: int = 1, epsilon: float = EPSILON) -> Horizon:
    """The largest lag k at which at least half of the samples still have ε of their largest gradient.

    by_lag: φ_k of one sample (K,), or of S = m·n samples (K, m·n) as in `LayerFlow.by_lag`, with m = `num_losses`. Each
    sample is compared with the peak of its own curve, because upper layers' paths can make lag 0 small. Samples that do
    not reach back to lag k (NaN) do not count there.

    The interval: with n sequences and m losses, the share p of samples that reach lag k has about the variance
    σ² = ¼/n + s²/m, where s² is the variance of the share between losses. The ends of the interval are the largest lags
    with p ≥ ½ + z·σ and p ≥ ½ − z·σ, at most from the lag that all samples reach to the lag that any sample reaches.
    """
    samples = by_lag.reshape(len(by_lag), num_losses, -1)
    known = samples.isfinite()
    peak = samples.masked_fill(~known, -math.inf).amax(0)
    known &= peak > 0
    reaches = (known & (samples >= epsilon * peak)).double()
    count = known.sum((1, 2)).double()
    share = reaches.sum((1, 2)) / count.clamp(min=1)
    by_loss = torch.where(known.any(2), reaches.sum(2) / known.sum(2).clamp(min=1), math.nan)
    losses = known.any(2).sum(1).clamp(min=1).double()
    between = ((by_loss - by_loss.nanmean(1, keepdim=True)).square().nansum(1)) / (losses - 1).clamp(min=1)
    sequences = known.any(1).sum(1).clamp(min=1).double()
    margin = (QUANTILE * (0.25 / sequences + between / losses).sqrt()).minimum(0.5 - 0.5 / count.clamp(min=1))
    lag, low, high = (_largest(share >= bound) for bound in (0.5, 0.5 + margin, 0.5 - margin))
    return Horizon(lag, min(low, lag), max(high, lag), bool(count[-1]) and lag == len(by_lag) - 1)


def _largest(reached: Tensor) -> int:
    places = reached.nonzero()
    return int(places.max()) if len(places) else 0
