"""Numbers in columns of texts, which are read if every value is one."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

DECIMAL = r"^[-+]?\d+(,\d+)?([eE][-+]?\d+)?$"  # a number with a decimal comma, or without decimals
THOUSANDS = r"^[-+]?[1-9]\d{0,2}(,\d{3})+$"  # what may be a whole number with commas between thousands
POINTS = r"^[-+]?[1-9]\d{0,2}(\.\d{3})+$"  # what may be a whole number with points between thousands
SMALL = r"^[-+]?\d{1,3}$"  # a whole number beside them, which has no thousands to part
BOOLEANS = ["true", "false"]


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
