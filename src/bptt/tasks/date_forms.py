"""Forms of dates, time stamps and times of day that are texts in users' tables."""

import re
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

# Spaces in a form fit no space, too. %B is a month's name, whole or abbreviated; %.f is a fraction, or nothing.
DAYS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%B-%d-%Y",
    "%B %d %Y", "%B %d, %Y", "%d %B %Y", "%d-%B-%Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%m-%y", "%d-%B-%y",
    "%y-%m-%d", "%y/%m/%d",
)  # fmt: skip
TIMES = ("%H:%M", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p")
BASIC = ("%Y%m%d %H%M%S%.f", "%Y%m%d %H%M", "%Y-%m-%d %H%M%S%.f")  # of ISO 8601
MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y", "%Y %B", "%B %Y", "%Y-%B", "%B-%Y")
QUARTER = r"^(\d{4})[ -]?Q([1-4])$"
ZONE = r" \d\d?:?\d\d[\d:.]* ?[+-]\d\d:?\d\d$"
HOURS_FROM_UTC = r"( \d\d?:\d\d[\d:.]* ?[+-]\d\d)$"  # as PostgreSQL writes +00
FOUR_DIGITS = r"^\d{4}[-/.]"
DAY = 24 * 3600  # seconds
ORDERED = re.compile("%([dmyY])")
YEARS = 1000, 2999  # others are of a form that does not fit: 24 for 2024, or 50 for Jan 1950, read as 19 January 50


def with_dates(frame: "pl.DataFrame", forms: dict[str, str] | None = None) -> "pl.DataFrame":
    """The table with columns of texts converted to time if all their values are time stamps.

    If there is one column of dates and one of times of day, the times are added to the dates. forms: those of another
    table, by column, whose order of day, month and year is kept if it fits; those of this table take their place.
    """
    import polars as pl

    forms = {} if forms is None else forms
    for name, kind in frame.schema.items():
        if kind == pl.String and frame[name].drop_nulls().head(1).str.contains(r"\d").any():
            column, form = parsed(frame[name], forms.get(name))
            if column.null_count() == frame[name].null_count():
                frame, forms[name] = frame.with_columns(column), form
    dates, times = ([name for name, dtype in frame.schema.items() if dtype == kind] for kind in (pl.Date, pl.Time))
    if len(dates) == len(times) == 1:
        frame = frame.with_columns(pl.col(dates[0]).dt.combine(pl.col(times[0])))
    return frame


def parsed(column: "pl.Series", like: str | None = None) -> tuple["pl.Series", str]:
    """A column of texts as time in the form that fits most of them, missing for the others; and this form.

    If two forms fit equally, as for 03/04/2020, the form is chosen with day, month and year in the order of `like`;
    without it, the form in which more rows are later than the row before; among equal ones, the form whose steps differ
    least; among these, one of years, on the first or last day of a month, else the one of the shortest time. Time
    stamps with a zone are in UTC.
    """
    import polars as pl

    best, score, chosen = pl.Series(column.name, [None] * len(column), dtype=pl.Date), (0, False, 0, 0.0, False, 0), ""
    plain = column.str.replace(r"(\d)T(\d)", "${1} ${2}").str.replace(r"(\d) ?(Z|UTC)$", "${1}+00:00")
    plain = plain.str.replace(HOURS_FROM_UTC, "${1}:00")
    zone = "%z" if plain.str.contains(ZONE).any() else ""
    groups = [
        (pl.Time, plain, TIMES),
        (pl.Date, plain, DAYS),
        (pl.Date, column + " 1", [f"{month} %d" for month in MONTHS]),
        (pl.Date, quarters(column), ["%Y-%m-%d"]),
        (pl.Date, column + "-1", ["%G-W%V-%u"]),
        (pl.Datetime, plain, [f"{day} {time}{zone}" for day, time in product(DAYS, TIMES)]),
        (pl.Datetime, plain, [form + zone for form in BASIC]),
    ]
    if not plain.str.contains(r":\d\d|:\d+:").any():  # 2:1 is a result, or a ratio
        groups = groups[1:]
    for kind, texts, forms in groups:
        first = texts.drop_nulls().head(3).to_frame()  # all forms in one query, which is faster
        read = (pl.nth(0).str.strptime(kind, form, strict=False).is_not_null().any().alias(form) for form in forms)
        for form in [each.name for each in first.select(*read) if each[0]]:
            candidate = texts.str.strptime(kind, form, strict=False).alias(column.name)
            if kind != pl.Time:
                strange = ~candidate.dt.year().is_between(*YEARS)
                if form.startswith("%Y"):  # 0001 is a year of climate models
                    strange = strange & ~texts.str.contains(FOUR_DIGITS)
                candidate = candidate.set(strange, None)
            steps = candidate.drop_nulls().diff().drop_nulls().dt.total_seconds().to_numpy()
            number = len(candidate) - candidate.null_count()
            kept = like is not None and order(form) == order(like) != ""
            later, shortness = int((steps > 0).sum()), -abs(int(steps.sum()))
            own_score = (number, kept, later, *spacing(candidate.drop_nulls(), steps), shortness)
            if number and own_score > score:
                best, score, chosen = candidate, own_score, form
    return best, chosen


def spacing(stamps: "pl.Series", steps: NDArray[np.int64]) -> tuple[float, bool]:
    """Minus the difference in seconds between the longest and the shortest step, and whether the steps are years.

    They are if all stamps are on the first or last day of a month. Then leap years make no difference.
    """
    if not len(steps):
        return 0.0, False
    spread = float(np.ptp(steps))
    if steps.min() < 365 * DAY or spread > DAY:
        return -spread, False
    days = stamps.dt.day()
    borders = bool((days == 1).all() or (days == stamps.dt.month_end().dt.day()).all())
    return 0.0 if borders else -spread, borders


def order(form: str) -> str:
    """The order of day, month and year as numbers in a form: "dmy", "mdy", "ymd" or "Ymd"; empty for months by name."""
    found = "".join(ORDERED.findall(form))
    return "" if len(found) < 3 else found if found.endswith("md") else found.lower()


def quarters(column: "pl.Series") -> "pl.Series":
    """Texts such as 1970 Q2 as the first day of the quarter, 1970-4-1; others are missing."""
    import polars as pl

    texts = pl.col(column.name)
    year, quarter = (texts.str.extract(QUARTER, group) for group in (1, 2))
    month = quarter.cast(pl.Int32) * 3 - 2
    return pl.DataFrame(column).select(pl.format("{}-{}-1", year, month)).to_series()
