"""Time stamps in users' tables."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import refusal, setting
from bptt.tasks.date_forms import parsed
from bptt.tasks.number_texts import either_way, points_fit_thousands

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

YEARS = 1800, 2200  # range of numbers that are read as dates
EPOCHS = 630_720_000, 4_102_444_800  # 1989-12-27 to 2100-01-01 in seconds since 1970
SHORT = (0, 59), (0, 59), (0, 24), (1, 31), (1, 12)  # ranges of seconds, minutes, hours, days and months in dates
SECONDS = 1, 60, 3600  # of the first three


def temporal(frame: "pl.DataFrame") -> list[str]:
    """Names of the columns with dates or time stamps, then of those with times of day alone."""
    import polars as pl

    names = [name for name, kind in frame.schema.items() if kind.is_temporal()]
    return sorted(names, key=lambda name: frame.schema[name] == pl.Time)


def whole_number_dates(frame: "pl.DataFrame") -> dict[str, "pl.Series"]:
    """The columns of numbers that are all dates such as 20240531, as dates.

    With hours, 2024053112, minutes, 202405311230, or seconds, 20240531123000, they are date-times.
    """
    import polars as pl

    dates = {}
    for column in frame:
        column = column.fill_nan(None) if column.dtype.is_float() else column
        if not (column.dtype.is_integer() or column.dtype.is_float()) or column.null_count() == len(column):
            continue
        numbers = column.drop_nulls().cast(pl.Float64)  # polars compares small integers with none beyond their range
        if not (numbers.is_between(YEARS[0] * 1e4, (YEARS[1] + 1) * 1e10) & (numbers % 1 == 0)).all():
            continue
        for finest in (3, 2, 1, 0):  # of `SHORT`: days, hours, minutes, seconds
            # A few seconds since 1970 may look like dates with hours.
            few = finest == 2 and numbers.n_unique() < 10
            if in_fields(numbers, SHORT[finest:], years=(1990, 2099) if few else YEARS):
                rest = column.cast(pl.Int64)
                clock = 0 * rest
                for seconds in SECONDS[finest:]:
                    clock += seconds * (rest % 100)
                    rest //= 100
                days = rest.cast(pl.String).str.to_date("%Y%m%d", strict=False)
                if days.null_count() == column.null_count():
                    time = days.cast(pl.Datetime("us")) + (clock * 1_000_000).cast(pl.Duration("us"))
                    dates[column.name] = time if finest < 3 else days
    return dates


def row_numbers(frame: "pl.DataFrame", segments: Sequence[tuple[int, int]]) -> list[str]:
    """Names of the columns that number the rows of each series: whole numbers with equal steps above 0.

    Also columns that ascend in every row and hold seconds since 1970, or milli-, micro- or nanoseconds.
    """
    names = []
    for name, kind in frame.schema.items():
        if not (kind.is_integer() or kind.is_float()) or frame[name].null_count():
            continue
        values = signed(frame[name].to_numpy())
        if not np.isfinite(values).all():
            continue
        with np.errstate(over="ignore"):  # of numbers that are no time
            steps = np.unique(np.concatenate([np.diff(values[start:stop]) for start, stop in segments]))
        whole = kind.is_integer() or bool((values == np.trunc(values)).all())  # pandas writes years as 1990.0
        if len(steps) and steps.min() > 0 and (units_since_1970(frame[name]) or (len(steps) == 1 and whole)):
            names.append(name)
    return names


def unnamed_row_numbers(frame: "pl.DataFrame", segments: Sequence[tuple[int, int]]) -> list[str]:
    """`row_numbers` in columns without a name of their own, as pandas and R write them."""
    unnamed = [name for name in frame.columns if re.fullmatch(r"column_\d+", name)]
    return row_numbers(frame.select(unnamed), segments)


def signed(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in int64, since differences of unsigned and of small ones leave their range; others as they are."""
    if values.dtype.kind not in "iu":
        return values
    beyond = values.dtype == np.uint64 and (values > np.iinfo(np.int64).max).any()
    return values.astype(np.float64 if beyond else np.int64)


def units_since_1970(column: "pl.Series") -> int | None:
    """Units a second of numbers that all count the time since 1970, in the years 1990 to 2099. None for others.

    The units are seconds, milli-, micro- or nanoseconds, of which only one fits.
    """
    if not (column.dtype.is_integer() or column.dtype.is_float()) or column.null_count() or column.is_empty():
        return None
    low, high = (float(end) for end in (column.to_numpy().min(), column.to_numpy().max()))
    fitting = (unit for unit in (1, 10**3, 10**6, 10**9) if EPOCHS[0] * unit <= low and high <= EPOCHS[1] * unit)
    return next(fitting, None)


def units_of_clock(column: "pl.Series") -> int | None:
    """`units_since_1970`, but None for dates such as 2405311200 or 240531120000, which are no seconds since then."""
    unit = units_since_1970(column)
    fields = {1: SHORT[1:], 1000: SHORT}.get(unit or 0)
    return None if fields and in_fields(column, fields, years=(0, 99)) else unit


def in_fields(column: "pl.Series", fields: Sequence[tuple[int, int]], *, years: tuple[int, int]) -> bool:
    """Whether all numbers are a year followed by fields of two digits in these ranges, given from the last one."""
    rest = column.cast(int, strict=False).to_numpy()
    inside = np.ones(len(rest), dtype=bool)
    for low, high in fields:
        rest, field = np.divmod(rest, 100)
        inside &= (low <= field) & (field <= high)
    return bool((inside & (years[0] <= rest) & (rest <= years[1])).all())


def time_stamps(frame: "pl.DataFrame", name: str) -> "pl.Series":
    """A column as time: dates and numbers as they are, numbers such as 20240531 and texts as dates, zones as UTC."""
    import polars as pl

    column = frame[name]
    column = column.cast(pl.String) if isinstance(column.dtype, pl.Categorical | pl.Enum) else column
    if column.dtype.is_float() or column.dtype.is_decimal():
        column = column.cast(pl.Float64).fill_nan(None)
    if not (column.dtype.is_temporal() or column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null)):
        raise ValueError(refusal(f"task.time: column {name!r}", "time stamps, numbers or texts", str(column.dtype)))
    if column.dtype == pl.String:
        stamps, _ = parsed(column)
        if stamps.null_count() > column.null_count():
            example = column.filter(stamps.is_null() & column.is_not_null())[0]
            remedy = either_way(example) if points_fit_thousands(column) and "." in example else ""
            raise ValueError(
                refusal("task.time", "a column of time stamps such as 2024-05-31 12:00:00", example, remedy)
            )
        column = stamps
    column = whole_number_dates(frame.select(name)).get(name, column)
    if getattr(column.dtype, "time_zone", None):
        column = column.dt.convert_time_zone("UTC")
    if column.null_count():
        row = 1 + int(column.is_null().arg_max() or 0)
        got = f"got none in row {row}; remove such rows, or leave the column out: {setting('task.leave_out', name)}"
        raise ValueError(f"task.time: column {name!r} must have a time stamp in every row, {got}")
    return column


def check_order(time: "pl.Series", segments: Sequence[tuple[int, int]], rows: NDArray[np.int64]) -> None:
    """Raise ValueError unless time stamps ascend within each series. `rows`: number of each row in the file, from 0."""
    values = signed(time.to_physical().to_numpy())
    for start, stop in segments:
        steps = np.diff(values[start:stop])
        if (steps > 0).all():
            continue
        index = start + 1 + int(np.argmax(steps <= 0))
        how = "the same again" if values[index] == values[index - 1] else "an earlier one"
        raise ValueError(
            f"time stamps in {time.name!r} must ascend, got {how} in row {rows[index] + 1} ({time[index]}); sort the "
            "file and remove duplicates, name the column that identifies the series: task.series=COLUMN, or leave "
            f"times of day and of clocks that are set back out: {setting('task.leave_out', time.name)}"
        )
