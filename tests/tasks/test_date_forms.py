"""Texts as time stamps: the form that is chosen for a column, and its values."""

from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bptt.tasks.date_forms import parsed
from bptt.tasks.missing_values import Missing
from bptt.tasks.tables import read_table

ONE = datetime(2024, 1, 31, 10)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("20240131T100000", ONE),
        ("20240131T1000", ONE),
        ("20240131T100000Z", ONE.replace(tzinfo=UTC)),
        ("2024-01-31T100000.0", ONE),
        ("2024-01-31T10:00:00", ONE),
        ("2024-01-31T10:00:00.000", ONE),
        ("2024-01-31 10:00:00 UTC", ONE.replace(tzinfo=UTC)),
        ("2024-01-31 10:00Z", ONE.replace(tzinfo=UTC)),
        ("2024-01-31T11:00:00 +01:00", ONE.replace(tzinfo=UTC)),
        ("31/01/2024 10:00:00 UTC", ONE.replace(tzinfo=UTC)),
        ("10:00", time(10)),
        ("10:00:00.0", time(10)),
        ("10:00 AM", time(10)),
        ("2024-01-31 10:00:00 CET", "2024-01-31 10:00:00 CET"),
        ("2024-01-31 25:00:00", "2024-01-31 25:00:00"),
    ],
)
def test_forms_of_iso_8601_and_zones(tmp_path: Path, suffix: str, first: str, expected: Any) -> None:
    """A column that is not understood stays text; it does not keep the others from being read."""
    frame = pl.DataFrame({"t": [first] * 3, "day": ["2024-05-31"] * 3, "x": [0.5, 1.5, 2.5]})
    path = tmp_path / f"log{suffix}"
    frame.write_parquet(path) if suffix == ".parquet" else frame.write_csv(path)
    read = read_table(path, Missing())
    if isinstance(expected, time):
        assert read["day"][0] == datetime.combine(date(2024, 5, 31), expected)
    else:
        assert read["day"][0] == date(2024, 5, 31)
    assert read["t"][0] == expected
    assert read["x"].to_list() == [0.5, 1.5, 2.5]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Jan 1950", "Feb 1950"], date(1950, 1, 1)),  # also 19 January of the year 50
        (["Dec 1999", "Jan 2000"], date(1999, 12, 1)),
        (["01/31/24", "02/01/24"], date(2024, 1, 31)),
        (["1659-01", "1659-02"], date(1659, 1, 1)),
        (["87-05-20", "87-05-21"], None),  # the day of 1987, or the year of some month
    ],
)
def test_years_have_four_digits(texts: list[str], expected: date | None) -> None:
    assert parsed(pl.Series("t", texts))[0][0] == expected


def test_a_date_of_an_early_year_is_no_date(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("t,x\n87-05-20,1\n87-05-21,2\n")
    assert read_table(tmp_path / "log.csv", Missing())["t"].dtype == pl.String
