"""Numbers and dates in columns of texts: read if every value is one, else refused, since they are no categories."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

# A number with signs, currency, separators of thousands, decimal comma, exponent, or per cent; a decimal with a unit.
NUMBER = re.compile(
    r"[-+−–]?\s*[$€£¥]?\s*[-+−–]?(\d[\d.,'\s]*|[.,]\d+)([eEdD][-+]?\d+)?\s*[%‰$€£¥]?|0x[\da-fA-F]+"
    r"|[-+−]?\d+[.,]\d+\s*[a-zA-Zµ°][\w°/^²³]*|[-+]?(inf|infinity|nan)",
    re.IGNORECASE,
)
DECIMAL = r"^[-+]?\d+(,\d+)?([eE][-+]?\d+)?$"  # a number with a decimal comma, or without decimals
THOUSANDS = r"^[-+]?[1-9]\d{0,2}(,\d{3})+$"  # what may be a whole number with commas between thousands
BOOLEANS = ["true", "false"]
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")


def with_numbers(frame: "pl.DataFrame", missing: Mapping[str, list[str]]) -> "pl.DataFrame":
    """The table without spaces around texts; columns of texts that are all numbers then become numbers.

    missing: texts that mean no value, for each column.

    Numbers may have decimal commas, unless all with a comma could as well have it between thousands, like 1,500.
    """
    import polars as pl

    for name, kind in frame.schema.items():
        if kind == pl.String:
            texts = frame[name].str.strip_chars()
            texts = texts.set(texts.is_in(missing[name]), None)
            with_comma = texts.filter(texts.str.contains(","))
            if texts.str.contains(DECIMAL).all() and not with_comma.str.contains(THOUSANDS).all():
                texts = texts.str.replace(",", ".", literal=True)
            if texts.null_count() == len(texts):
                frame = frame.with_columns(texts.cast(pl.Null))  # of no kind: in another file it may be of any
                continue
            if texts.str.to_lowercase().is_in(BOOLEANS).all():  # without spaces and marks polars reads them itself
                frame = frame.with_columns(texts.str.to_lowercase() == BOOLEANS[0])
                continue
            forms = (texts.cast(form, strict=False) for form in (pl.Int64, pl.Float64))
            numbers = (form for form in forms if form.null_count() == texts.null_count())
            frame = frame.with_columns(next(numbers, texts))
    return frame


def require_categories(texts: "pl.Series", otherwise: str) -> None:
    """Raise ValueError for a column of texts with numbers or dates, which are no categories.

    otherwise: what to do if the texts cannot be changed, as in `leave it out`.
    """
    values = texts.drop_nulls().unique(maintain_order=True).to_list()
    dates = [value for value in values if DATE.fullmatch(value)]
    refused = [value for value in values if value in dates or NUMBER.fullmatch(value.strip("\0 "))]
    if not refused:
        return
    others = [value for value in values if value not in refused]
    first = refused[0]
    if not others:  # the first one that is no number, which is the reason why the column holds texts
        plain = texts.cast(float, strict=False).is_null() & texts.is_not_null()
        first = next(iter(texts.filter(plain)), first)
    got = f"{first!r} beside {others[0]!r}" if others else f"{first!r} in row {texts.to_list().index(first) + 1}"
    if others:
        remedy = f"leave the fields with {others[0]!r} empty, or begin codes with a letter"
    elif dates:
        remedy = "write them as 2024-05-31 12:00:00"
    else:
        remedy = "write them as 1234.5, without units, spaces or other separators"
    raise ValueError(
        f"column {texts.name!r} must be numbers, time stamps, or texts that are neither, got {got}; {remedy}, "
        f"or {otherwise}"
    )
