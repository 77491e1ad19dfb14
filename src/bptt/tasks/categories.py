"""Texts that are categories. Numbers and times in other forms than those that are read are none, and are refused."""

import re
from typing import TYPE_CHECKING

from bptt.tasks.date_forms import parsed
from bptt.tasks.number_texts import POINTS, either_way

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

# A number with signs, currency, separators of thousands, decimal comma, exponent, or per cent; a decimal with a unit.
NUMBER = re.compile(
    r"[-+−–]?\s*([$€£¥]\s*)?[-+−–]?(\d[\d.,'\s]*|[.,]\d+\s*)([eEdD][-+]?\d+\s*)?[%‰$€£¥;|]?|0x[\da-fA-F]+"
    r"|[-+−]?\d+[.,]\d+\s*[a-zA-Zµ°][\w°/^²³]*|[-+]?(inf|infinity|nan)",
    re.IGNORECASE,
)
# Hours and minutes; a column of times of day alone is time.
ELAPSED = re.compile(r"[-+−]?(\d+ days?,? )?\d+:\d\d(:\d\d)?([.,]\d+)?")
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?")
MONTH = re.compile("[a-z]{3}", re.IGNORECASE)  # in a date; codes such as 1001-02 are none beside 1001-13
ITEM = r"([-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?|-?inf|nan|none|null|\.\.\.)"
LIST = re.compile(rf"\[[\s\[]*({ITEM}([\s,;\[\]]+{ITEM})*[\s,\]]*)?\]+", re.IGNORECASE)  # as Python writes it
LONG = re.compile(rf"\[[\s\[]*{ITEM}([\s,;\[\]]+{ITEM}){{2}}", re.IGNORECASE)  # others may be intervals or footnotes
LINES_OF_NAMES = 3  # that may follow the first one, such as a line of units
REMEDIES = {  # by the form of values that are no categories, those that say most first
    "list": "write a row for each of their numbers, or Parquet with columns of lists",
    "elapsed time": "write elapsed times as numbers, or begin codes with a letter",
    "date": "write them as 2024-05-31 12:00:00",
    "number": "write them as 1234.5, without units, spaces or other separators",
}


def require_categories(texts: "pl.Series", otherwise: str) -> None:
    """Raise ValueError for a column of texts with numbers or times, which are no categories.

    otherwise: what to do if the texts cannot be changed, as in `leave it out`.
    """
    values = texts.drop_nulls().unique(maintain_order=True)
    forms = written_forms(values)
    if not forms:
        return
    others = values.filter(~values.is_in(list(forms)))
    if others.len():
        got = f"{next(iter(forms))!r} beside {others[0]!r}"
        remedy = f"leave the fields with {others[0]!r} empty, or begin codes with a letter"
        rows = texts.is_in(others).arg_true()
        if rows[-1] < LINES_OF_NAMES <= len(texts) - len(rows):
            remedy = f"keep one line of names if row {rows[0] + 1} is another; else {remedy}"
    else:
        reason = values.filter(values.cast(float, strict=False).is_null())  # why the column holds texts
        first = next(iter(reason), None) or next((each for each in values if "." in each), values[0])
        got = f"{first!r} in row {texts.to_list().index(first) + 1}"
        remedy = REMEDIES[min(forms.values(), key=list(REMEDIES).index)]
        if remedy == REMEDIES["number"] and re.fullmatch(POINTS, first) and first.count(".") == 1:
            remedy = either_way(first)
    raise ValueError(
        f"column {texts.name!r} must be numbers, time stamps, or texts that are neither, got {got}; {remedy}, "
        f"or {otherwise}"
    )


def written_forms(values: "pl.Series") -> dict[str, str]:
    """The form of each value that is no category, a key of `REMEDIES`."""
    if all(map(LIST.fullmatch, values)) and any(map(LONG.match, values)):
        return dict.fromkeys(values, "list")
    forms: dict[str, str] = {}
    for value, stamp in zip(values, parsed(values)[0]):
        if ELAPSED.fullmatch(value):
            forms[value] = "elapsed time"
        elif DATE.fullmatch(value) or (stamp is not None and MONTH.search(value)):
            forms[value] = "date"
        elif NUMBER.fullmatch(value.strip("\0 ")):
            forms[value] = "number"
    return forms
