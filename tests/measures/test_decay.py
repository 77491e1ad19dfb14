"""Decay rate of gradients by lag."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.measures import decay_rate

pytestmark = pytest.mark.usefixtures("float64")


@given(rate=st.floats(0.01, 3), first=st.floats(1e-6, 1e6), length=st.integers(2, 60), kind=st.sampled_from([32, 64]))
def test_decay_rate_of_a_geometric_curve_is_its_factor(rate: float, first: float, length: int, kind: int) -> None:
    """In single precision the curve ends where it runs out of numbers, and the rate is still that of its beginning."""
    curve = first * torch.tensor(rate) ** torch.arange(length)
    if kind == 32:
        curve = curve.float()
        curve = curve.where(curve > 1e-37, 0)  # no half-precise remainders
    if curve.count_nonzero() < 2:
        return
    assert decay_rate(curve) == pytest.approx(rate, rel=1e-10 if kind == 64 else 1e-5)


def test_decay_rate_is_the_least_squares_slope() -> None:
    curve = torch.rand(30) * 0.8 ** torch.arange(30)
    slope, _ = np.polyfit(np.arange(30), np.log(curve.numpy()), 1)
    assert decay_rate(curve) == pytest.approx(math.exp(slope), rel=1e-12)


def test_decay_rate_leaves_zeros_out() -> None:
    """A relu layer that is off at some timestep, or a gradient that has underflowed, says nothing of the rate."""
    curve = 0.5 ** torch.arange(10.0)
    curve[[3, 8, 9]] = 0
    assert decay_rate(curve) == pytest.approx(0.5)
    for nothing in ([1.0], [0.0, 0.0], [2.0, 0.0, 0.0]):
        assert math.isnan(decay_rate(torch.tensor(nothing)))


def test_curve_of_a_diverged_network() -> None:
    """NaN and inf are what exploding gradients end in: a measure of them must not end the run."""
    nan, inf = math.nan, math.inf
    for curve in ([nan, nan], [nan, 1.0], [inf, inf], [1.0, inf], [1.0, nan]):
        assert not decay_rate(torch.tensor(curve)) < 1
