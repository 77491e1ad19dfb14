"""Numbers and dates in columns of texts: read if every value is one, else refused, since they are no categories."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bptt.tasks.date_forms import parsed

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

# A number with signs, currency, separators of thousands, decimal comma, exponent, or per cent; a decimal with a unit.
NUMBER = re.compile(
    r"[-+−–]?\s*[$€£¥]?\s*[-+−–]?(\d[\d.,'\s]*|[.,]\d+)([eEdD][-+]?\d+)?\s*[%‰$€£¥;|]?|0x[\da-fA-F]+"
    r"|[-+−]?\d+[.,]\d+\s*[a-zA-Zµ°][\w°/^²³]*|[-+]?(inf|infinity|nan)",
    re.IGNORECASE,
)
DECIMAL = r"^[-+]?\d+(,\d+)?([eE][-+]?\d+)?$"  # a number with a decimal comma, or without decimals
THOUSANDS = r"^[-+]?[1-9]\d{0,2}(,\d{3})+$"  # what may be a whole number with commas between thousands
POINTS = r"^[-+]?[1-9]\d{0,2}(\.\d{3})+$"  # what may be a whole number with points between thousands
SMALL = r"^[-+]?\d{1,3}$"  # a whole number beside them, which has no thousands to part
BOOLEANS = ["true", "false"]
LINES_OF_NAMES = 3  # that may follow the first one, such as a line of units
# Hours and minutes; a column of times of day alone is time.
ELAPSED = re.compile(r"[-+−]?(\d+ days?,? )?\d+:\d\d(:\d\d)?([.,]\d+)?")
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")
MONTH = re.compile("[a-z]{3}", re.IGNORECASE)  # in a date; codes such as 1001-02 are none beside 1001-13
ITEM = r"([-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|-?inf|nan|none|null|\.\.\.)"
LIST = re.compile(rf"\[[\s\[]*({ITEM}([\s,;\[\]]+{ITEM})*)?[\s,\]]*\]", re.IGNORECASE)  # as Python writes it
LONG = re.compile(rf"\[[\s\[]*{ITEM}([\s,;\[\]]+{ITEM}){{2}}", re.IGNORECASE)  # others may be intervals or footnotes


def with_numbers(frame: "pl.DataFrame", missing: Mapping[str, list[str]], separator: str) -> "pl.DataFrame":
    """The table without spaces around texts; columns of texts that are all numbers then become numbers.

    missing: texts that mean no value, for each column. separator: of the file's columns.

    Numbers may have decimal commas, unless all with a comma could as well have it between thousands, like 1,500. They
    may have decimal points, unless all of 1,000 and more could as well have them between thousands, like 1.500, and
    other columns have decimal commas, or some of the numbers have no point where the separator is not the comma.
    """
    import polars as pl

    decimal_commas, pointed = False, list[tuple[pl.Series, pl.Series]]()
    for name, kind in frame.schema.items():
        if kind == pl.String:
            texts = plain(frame[name], missing[name])
            if has_decimal_commas(texts):
                decimal_commas = True
                texts = texts.str.replace(",", ".", literal=True)
            with_point = texts.str.contains(".", literal=True)
            if with_point.any() and points_fit_thousands(texts) and texts.filter(~with_point).str.contains(SMALL).all():
                pointed.append((texts, with_point))
            if texts.null_count() == len(texts):
                frame = frame.with_columns(texts.cast(pl.Null))  # of no kind: in another file it may be of any
                continue
            if texts.str.to_lowercase().is_in(BOOLEANS).all():  # without spaces and marks polars reads them itself
                frame = frame.with_columns(texts.str.to_lowercase() == BOOLEANS[0])
                continue
            forms = (texts.cast(form, strict=False) for form in (pl.Int64, pl.Float64))
            numbers = (form for form in forms if form.null_count() == texts.null_count())
            frame = frame.with_columns(next(numbers, texts))
    return frame.with_columns(
        texts for texts, parted in pointed if decimal_commas or (separator != "," and not parted.all())
    )


def plain(texts: "pl.Series", absent: Sequence[str]) -> "pl.Series":
    """The texts without spaces around them; null for those that mean no value."""
    stripped = texts.str.strip_chars()
    return stripped.set(stripped.is_in(absent), None)


def has_decimal_commas(texts: "pl.Series") -> bool:
    """True if all texts are numbers, some with a comma that cannot part thousands."""
    with_comma = texts.filter(texts.str.contains(","))
    return bool(texts.str.contains(DECIMAL).all()) and not with_comma.str.contains(THOUSANDS).all()


def points_fit_thousands(texts: "pl.Series") -> bool:
    """True if all points of a column could part thousands, like that of 1.500; also without any."""
    return bool(texts.filter(texts.str.contains(".", literal=True)).str.contains(POINTS).all())


def either_way(number: str) -> str:
    """A remedy for a number like 1.500, whose point may be decimal or between thousands."""
    return f"its point may be decimal or between thousands: write {number.replace('.', '')} or {number}0"


def require_categories(texts: "pl.Series", otherwise: str) -> None:
    """Raise ValueError for a column of texts with numbers or dates, which are no categories.

    otherwise: what to do if the texts cannot be changed, as in `leave it out`.
    """
    values = texts.drop_nulls().unique(maintain_order=True).to_list()
    stamps, _ = parsed(texts.drop_nulls().unique(maintain_order=True))
    named = (value for value, stamp in zip(values, stamps) if stamp is not None and MONTH.search(value))
    dates = [*named, *(value for value in values if DATE.fullmatch(value))]
    elapsed = [value for value in values if ELAPSED.fullmatch(value)]
    lists = values if all(map(LIST.fullmatch, values)) and any(map(LONG.match, values)) else []
    strange = {*dates, *elapsed, *lists}
    refused = [value for value in values if value in strange or NUMBER.fullmatch(value.strip("\0 "))]
    if not refused:
        return
    numeric = set(refused)
    others = [value for value in values if value not in numeric]
    first = refused[0]
    if not others:  # the first one that is no number, which is the reason why the column holds texts
        no_number = texts.cast(float, strict=False).is_null() & texts.is_not_null()
        first = next(iter(texts.filter(no_number)), None) or next((each for each in refused if "." in each), first)
    got = f"{first!r} beside {others[0]!r}" if others else f"{first!r} in row {texts.to_list().index(first) + 1}"
    if others:
        remedy = f"leave the fields with {others[0]!r} empty, or begin codes with a letter"
        rows = texts.is_in(others).arg_true()
        if rows[-1] < LINES_OF_NAMES <= len(texts) - len(rows):
            remedy = f"keep one line of names if row {rows[0] + 1} is another; else {remedy}"
    elif lists:
        remedy = "write a row for each of their numbers, or Parquet with columns of lists"
    elif elapsed:
        remedy = "write elapsed times as numbers, or begin codes with a letter"
    elif dates:
        remedy = "write them as 2024-05-31 12:00:00"
    elif re.fullmatch(POINTS, first) and first.count(".") == 1:
        remedy = either_way(first)
    else:
        remedy = "write them as 1234.5, without units, spaces or other separators"
    raise ValueError(
        f"column {texts.name!r} must be numbers, time stamps, or texts that are neither, got {got}; {remedy}, "
        f"or {otherwise}"
    )
