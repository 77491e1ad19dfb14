"""How far back the gradient reaches: of known curves, and with an interval that covers the exact value."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.masked_batches import loss, make_model, masked_batch

from bptt.measures import Horizon, band, exact_flows, horizon

pytestmark = pytest.mark.usefixtures("float64")


@given(T=st.integers(1, 6), B=st.integers(1, 40), number=st.integers(0, 10**6))
def test_band_is_median_and_percentiles_over_sequences(T: int, B: int, number: int) -> None:
    """Missing values are ignored."""
    norms = np.random.default_rng(number).exponential(size=(T, B))
    norms[0, 1::2] = math.nan
    for got, percentile in zip(band(torch.tensor(norms)), (50, 5, 95)):
        np.testing.assert_allclose(got, np.nanpercentile(norms, percentile, axis=1), rtol=1e-12)


@given(rate=st.floats(0.05, 0.97), epsilon=st.floats(1e-4, 0.9), length=st.integers(1, 80))
def test_horizon_of_a_geometric_curve(rate: float, epsilon: float, length: int) -> None:
    """The largest k with rateᵏ ≥ ε, or as far as the curve goes."""
    exact = math.log(epsilon) / math.log(rate)
    if abs(exact - round(exact)) < 1e-6:
        return  # on the edge, where rounding decides
    expected = min(math.floor(exact), length - 1)
    found = horizon(3.0 * torch.tensor(rate) ** torch.arange(length), epsilon=epsilon)
    assert found == (expected, expected, expected, math.floor(exact) >= length - 1)


def test_horizon_is_the_largest_lag_even_behind_a_gap() -> None:
    assert horizon(torch.tensor([1.0, 0.001, 0.02, 0.005])).lag == 2
    assert horizon(torch.tensor([1.0, 0.01, 0.0099])).lag == 1  # ε itself is within
    assert horizon(torch.tensor([1.0, 5.0, 20.0])).lag == 2  # exploding
    assert horizon(torch.tensor([1.0])).lag == 0
    assert horizon(torch.tensor([1.0, 0.5, 0.2, 0.1]), epsilon=0.3).lag == 1


def test_horizon_is_relative_to_the_peak_of_the_curve() -> None:
    """Below an upper layer lag 0 can be small."""
    assert horizon(torch.tensor([0.001, 1.0, 0.5, 0.009, 0.002])).lag == 2


def test_horizon_without_a_gradient() -> None:
    assert horizon(torch.zeros(5)) == (0, 0, 0, False)
    assert horizon(torch.tensor([0.0, 0.0, 1.0, 0.0])).lag == 2


def test_curve_of_a_diverged_network() -> None:
    """NaN and inf are what exploding gradients end in: a measure of them must not end the run."""
    nan, inf = math.nan, math.inf
    for curve in ([nan, nan], [nan, 1.0], [inf, inf], [1.0, inf], [1.0, nan]):
        assert 0 <= horizon(torch.tensor(curve)).lag <= 1


def test_samples_of_different_reach() -> None:
    """Half of those that reach back so far: of the first loss two lags are known, of the second four."""
    nan = math.nan
    curves = torch.tensor(
        [
            [1.0, 1.0, 1.0, 5.0],
            [0.5, 0.001, 0.5, 4.0],
            [nan, nan, 0.2, 0.01],
            [nan, nan, 0.1, 0.01],
        ]
    )
    found = horizon(curves, num_losses=2)
    assert (found.lag, found.capped) == (3, True)
    assert str(found) == "≥ 3"
    assert horizon(curves[:, [1, 3]], num_losses=2)[:2] == (1, 0)


def test_words() -> None:
    assert Horizon(23, 20, 27, False).interval == "23 (20 to 27)"
    assert Horizon(29, 29, 29, True).interval == "≥ 29"


def test_the_interval_covers_the_exact_value() -> None:
    """Four losses and 8 sequences, against all losses and all 24 sequences, in 100 random cases."""
    covered = 0
    for number in range(100):
        torch.manual_seed(number)
        kind = ("elman", "gru", "lstm", "irnn")[number % 4]
        length, pattern = 15 + number % 20, ("none", "random", "lengths")[number % 3]
        model, batch = make_model(kind, 1 + number % 2), masked_batch(pattern, length, 24, 5)
        batch.inputs = batch.inputs * 3
        start = model.initial_state(24)
        layer = number % 2
        every = exact_flows(model, loss, batch, start, num_sequences=24, num_losses=length)[layer]
        some = exact_flows(model, loss, batch, start, num_sequences=8)[layer]
        assert len(some.losses) <= 4 < len(every.losses)
        exact = horizon(every.by_lag["h"], num_losses=len(every.losses), epsilon=0.05)
        found = horizon(some.by_lag["h"], num_losses=len(some.losses), epsilon=0.05)
        covered += found.low <= exact.lag <= found.high
    assert covered >= 90
