"""Which points of a long curve stay."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.tensorboard_tab.thinning import MAX_POINTS, MIN_POINTS, thinned


@given(
    length=st.integers(1, 5000),
    max_points=st.integers(MIN_POINTS, 512),
    axis=st.sampled_from(["log", "linear"]),
    seed=st.integers(0, 99),
    keep=st.lists(st.integers(-5, 6000), max_size=3),
)
def test_thinned_curve_keeps_ends_extremes_and_given_points(
    length: int, max_points: int, axis: Literal["log", "linear"], seed: int, keep: list[int]
) -> None:
    rows = np.random.default_rng(seed).lognormal(size=(3, length))
    chosen = thinned(rows, max_points=max_points, axis=axis, keep=keep)
    assert len(chosen) <= max(max_points, 1)
    assert (np.diff(chosen) > 0).all()
    assert {0, length - 1} <= set(chosen)
    assert {index for index in keep[:2] if 0 <= index < length} <= set(chosen)
    if length <= max_points:
        assert len(chosen) == length
    assert rows[0, chosen].max() == rows[0].max()
    assert rows[0, chosen].min() == rows[0].min()


def test_short_lags_are_all_kept_and_long_ones_at_equal_ratios() -> None:
    chosen = thinned(np.geomspace(1, 1e-9, 100_000)[None], axis="log")
    assert MAX_POINTS // 2 < len(chosen) <= MAX_POINTS
    assert list(chosen[:10]) == list(range(10))
    beyond = chosen[chosen > 1000]
    assert (beyond[1:] / beyond[:-1]).max() < 1.2


def test_spike_between_two_points_of_the_axis_stays() -> None:
    values = np.ones(50_000)
    values[[33_333, 44_444]] = [7.0, 1e-5]
    for axis in ("log", "linear"):
        assert {33_333, 44_444} <= set(thinned(values[None], axis=axis))


def test_nan_is_no_extreme() -> None:
    """Neither as a number below, nor as one above all others of its bin."""
    for around, extreme in ((5.0, 1.0), (-5.0, -1.0)):
        values = np.full(5000, around)
        values[[2510, 2513]] = [np.nan, extreme]
        chosen = thinned(values[None], axis="linear")
        assert 2513 in chosen
        assert 2510 not in chosen


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_curves_without_extremes(value: float) -> None:
    assert 2 <= len(thinned(np.full((1, 3000), value), axis="log")) <= MAX_POINTS
