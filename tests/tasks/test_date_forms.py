"""Texts as time stamps: the form that is chosen for a column, and its values."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bptt.tasks.date_forms import parsed
from bptt.tasks.missing_values import Missing
from bptt.tasks.series import Series
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
        ("2024-01-31 11:00:00.5+01", ONE.replace(tzinfo=UTC, microsecond=500_000)),
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
        (["87-05-20", "87-05-21"], date(1987, 5, 20)),
        (["23-06-01", "23-06-02"], date(2023, 6, 1)),  # also 23 June of 2001 and 2002
        ([f"24-01-{day:02}" for day in range(1, 32)], date(2024, 1, 1)),
        (["24/01/01", "24/01/08", "24/01/15"], date(2024, 1, 1)),
        (["31/12/10", "31/12/11", "31/12/12", "31/12/13"], date(2010, 12, 31)),  # also four days of 2031
        (["30-06-07", "30-06-08", "30-06-09"], date(2007, 6, 30)),
        (["01/01/07", "01/01/08", "01/01/09"], date(2007, 1, 1)),
        (["24-01-05 22:00", "24-01-05 23:00", "24-01-06 00:00"], datetime(2024, 1, 5, 22)),
        (["0001-01-15", "0001-02-15"], date(1, 1, 15)),  # of a climate model
    ],
)
def test_years(texts: list[str], expected: date) -> None:
    assert parsed(pl.Series("t", texts))[0][0] == expected


def test_an_order_that_training_does_not_say(tmp_path: Path) -> None:
    """ISO 8601 says nothing about the order of day and month in another file."""
    texts = pl.Series("t", ["01/03/2024", "02/03/2024", "03/03/2024"])
    assert parsed(texts, "%Y-%m-%d")[1] == parsed(texts)[1] == "%d/%m/%Y"


@pytest.mark.parametrize("form", ["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d/%m/%y %H:%M"])
def test_a_file_to_predict_has_the_order_of_day_and_month_of_training(tmp_path: Path, form: str) -> None:
    """The hours of 5 June fit 6 May as well; so does a file with four digits for the year, or of days alone."""
    words: dict[str, Any] = {"length": 8, "batch_size": 1, "calendar": True}

    def written(name: str, start: datetime, own_form: str, step: timedelta) -> str:
        path = tmp_path / f"{name}.csv"
        rows = [f"{(start + row * step).strftime(own_form)},{row % 7}" for row in range(60)]
        path.write_text("\n".join(["t,x", *rows]) + "\n")
        return str(path)

    months = written("months", datetime(2024, 1, 20), form, timedelta(hours=12))
    hours = written("hours", datetime(2024, 6, 5), form.replace("y", "Y"), timedelta(minutes=20))
    days = written("days", datetime(2024, 6, 5), form.partition(" ")[0], timedelta(0))
    encoding = Series(path=months, **words).encoding
    predicted = Series(path=hours, **words, encoding=encoding)
    assert predicted._file.labels["t"][0] == datetime(2024, 6, 5)
    assert read_table(Path(days), Missing(), forms={"t": encoding["time_form"]})["t"][0] == date(2024, 6, 5)
    early = {key: value for key, value in encoding.items() if key != "time_form"}
    assert Series(path=hours, **words, encoding=early).encoding["inputs"] == encoding["inputs"]
    assert Series(path=months, **words, encoding=encoding)._file.labels["t"][1] == datetime(2024, 1, 20, 12)


@pytest.mark.parametrize(
    ("texts", "like", "form"),
    [
        (["01-01-05", "01-01-06"], "%y-%m-%d", "%y-%m-%d"),
        ([f"06/0{day}/24" for day in range(1, 6)], "%Y-%m-%d", "%m/%d/%y"),
        (["23-06-01", "23-06-02"], "%d/%m/%Y", "%d-%m-%y"),
        (["01/04/2024", "02/04/2024", "03/04/2024"], "%d-%B-%Y", "%d/%m/%Y"),  # the month's name has no order
    ],
)
def test_the_order_of_another_table(texts: list[str], like: str, form: str) -> None:
    assert parsed(pl.Series("t", texts), like)[1] == form


def test_another_order_of_day_and_month_is_taken_if_it_alone_fits() -> None:
    texts = pl.Series("t", ["05/30/2024", "05/31/2024"])
    assert parsed(texts, "%d/%m/%Y")[1] == "%m/%d/%Y"


@pytest.mark.parametrize("order", [["clock", "day", "x"], ["day", "clock", "x"]])
def test_dates_and_times_of_day_in_two_columns(tmp_path: Path, order: list[str]) -> None:
    hours = [ONE + timedelta(hours=row) for row in range(60)]
    days, clock = ([f"{hour:{form}}" for hour in hours] for form in ("%Y-%m-%d", "%H:%M"))
    frame = pl.DataFrame({"day": days, "clock": clock, "x": [row % 7 for row in range(60)]})
    frame.select(order).write_csv(tmp_path / "log.csv")
    task = Series(path=str(tmp_path / "log.csv"), length=8, batch_size=1)
    assert task.encoding["time"] == "day"
    assert task.encoding["inputs"] == ["x"]
    assert task._file.labels["day"].to_list() == hours


MONTHS = [f"{2000 + row // 12}-{1 + row % 12:02}" for row in range(60)]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([0.0, float("nan"), *map(float, range(2, 60))], "must have a time stamp in every row, got none in row 2"),
        ([bytes([row]) for row in range(60)], "column 't' must be time stamps, numbers or texts, got 'Binary'"),
        ([row > 30 for row in range(60)], "column 't' must be time stamps, numbers or texts, got 'Boolean'"),
        (pl.Series(MONTHS[::-1], dtype=pl.Categorical), "must ascend, got an earlier one in row 2"),
        ([Decimal(-row) / 4 for row in range(60)], "must ascend, got an earlier one in row 2"),
        (pl.Series(MONTHS, dtype=pl.Categorical), None),
        ([Decimal(row) / 4 for row in range(60)], None),
    ],
)
def test_columns_of_other_kinds_as_time(tmp_path: Path, column: Any, message: str | None) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"t": column, "x": [row % 7 for row in range(60)]}).write_parquet(path)
    if message is None:
        assert Series(path=str(path), length=8, batch_size=1, time="t").encoding["time"] == "t"
    else:
        with pytest.raises(ValueError, match=message):
            Series(path=str(path), length=8, batch_size=1, time="t")
