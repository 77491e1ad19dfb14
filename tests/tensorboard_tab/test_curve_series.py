"""Numbers as they leave the server."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_runs import decaying

from bptt.tensorboard_tab.series import digits, reduced


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-45, 1e38), st.floats(-1e38, -1e-45)), max_size=9))
def test_five_digits(values: list[float]) -> None:
    assert digits(np.array(values)) == pytest.approx([float(f"{value:.5g}") for value in values], rel=1e-4, abs=0)


def test_none_for_what_json_has_not() -> None:
    assert digits(np.array([np.nan, np.inf, -np.inf, 0.0, 123456.0])) == [None, None, None, 0.0, 123460.0]


@pytest.mark.parametrize("points", [8, 64, 128, 256])
def test_thinned_curve_keeps_the_place_of_its_horizon(points: int) -> None:
    curve = decaying(2000, decay=0.997)
    found = reduced(curve, points)
    assert len(found.places) <= points
    assert curve.facts["horizon"] in found.places
