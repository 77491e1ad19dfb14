"""Curves to bytes and back."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.tensorboard_tab.curve import Curve, from_bytes, to_bytes

places = st.lists(st.integers(1, 65_535), min_size=0, max_size=30).map(lambda gaps: np.cumsum([3, *gaps]))


@given(places=places, data=st.data())
def test_logarithmic_columns_come_back_within_a_fifth_of_a_percent(places: np.ndarray, data: st.DataObject) -> None:
    value = st.one_of(st.just(0.0), st.floats(1e-44, 1e38))
    column = np.array(data.draw(st.lists(value, min_size=len(places), max_size=len(places))))
    curve = Curve(places, {"median": column, "low": column / 2}, {"horizon": 3, "borders": [1, 2], "cut": None})
    found = from_bytes(to_bytes(curve))
    assert found.places.tolist() == places.tolist()
    assert found.facts == curve.facts
    np.testing.assert_allclose(found.columns["median"], column, rtol=1.7e-3)
    np.testing.assert_allclose(found.columns["low"], column / 2, rtol=1.7e-3)


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_other_columns_come_back_as_float32(values: list[float]) -> None:
    curve = Curve(np.arange(len(values)), {"cosine": np.array(values)}, logarithmic=False)
    np.testing.assert_array_equal(from_bytes(to_bytes(curve)).columns["cosine"], values)


def test_values_that_are_not_finite_stay_so() -> None:
    values = np.array([math.inf, math.nan, 0.0, 1.0])
    found = from_bytes(to_bytes(Curve(np.arange(4), {"median": values})))
    np.testing.assert_array_equal(found.columns["median"], values)


def test_facts_that_json_has_not_are_none() -> None:
    facts = {"decay_rate": math.nan, "lyapunov": -math.inf, "update": 2**40, "epsilon": 0.01}
    found = from_bytes(to_bytes(Curve(np.arange(1), {"median": np.ones(1)}, facts)))
    assert found.facts == {"decay_rate": None, "lyapunov": None, "update": 2**40, "epsilon": 0.01}


def test_a_look_at_a_long_curve_takes_a_few_kilobytes() -> None:
    columns = {name: np.ones(256) for name in ("median", "low", "high")}
    assert len(to_bytes(Curve(np.arange(256), columns))) < 2400


@pytest.mark.parametrize("gap", [65_535, 65_536, 10**12])
def test_places_may_be_any_distance_apart(gap: int) -> None:
    """Chunk sizes are 1, 2, 4, … and the size in use, which may be much larger than a batch."""
    curve = Curve(np.array([1, 2, 2 + gap]), {"cosine": np.ones(3)}, logarithmic=False)
    found = from_bytes(to_bytes(curve))
    assert found.places.tolist() == [1, 2, 2 + gap]
    np.testing.assert_array_equal(found.columns["cosine"], np.ones(3))


def test_event_files_of_earlier_versions_are_read() -> None:
    header = b'{"first":1,"points":3,"gaps":true,"columns":["cosine"],"logarithmic":false,"facts":{"update":1}}\n'
    data = header + np.array([1, 65_535], "<u2").tobytes() + np.array([0.5, 1, 2], "<f4").tobytes()
    found = from_bytes(data)
    assert found.places.tolist() == [1, 2, 65_537]
    assert found.columns["cosine"].tolist() == [0.5, 1, 2]
    assert to_bytes(found) == data


@pytest.mark.parametrize("cut", [0, 10, -1], ids=["empty", "header alone", "last byte missing"])
def test_bytes_of_something_else_are_refused(cut: int) -> None:
    data = to_bytes(Curve(np.arange(9), {"median": np.ones(9)}))
    with pytest.raises(ValueError, match="the bytes of a curve must have"):
        from_bytes(data[:cut])
