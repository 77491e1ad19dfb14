"""Numbers as they leave the server."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.tensorboard_tab.series import digits


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-45, 1e38), st.floats(-1e38, -1e-45)), max_size=9))
def test_five_digits(values: list[float]) -> None:
    assert digits(np.array(values)) == pytest.approx([float(f"{value:.5g}") for value in values], rel=1e-4, abs=0)


def test_none_for_what_json_has_not() -> None:
    assert digits(np.array([np.nan, np.inf, -np.inf, 0.0, 123456.0])) == [None, None, None, 0.0, 123460.0]
