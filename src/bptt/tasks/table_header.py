"""The first line of a table in text: its separator and the names of the columns."""

import csv
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bptt.contracts import refusal
from bptt.tasks.missing_values import WORDS

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

csv.field_size_limit(1 << 30)  # characters; polars reads fields of any size
SEPARATORS = ",;\t|"
QUOTED = re.compile('"[^"]*"')
OPEN = re.compile(r'(^|[,;\t|])\s*"')  # the beginning of a field that ends in a later line, once whole ones are removed
OF_EXCEL = re.compile(r'"?sep=.?"?\s*', re.IGNORECASE)
LINES = 100  # that a name may have
ROWS = 10  # among which the separator is searched
BEGINNING = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")
ROW = re.compile(r"[-+]?[.,]?\d[-\d\s:.,/T+Z]*([eE][-+]?\d+)?|[-+]inf")  # a number, date or time


def separator_and_lines(path: Path) -> tuple[str, list[str], list[str]]:
    """The separator, and the fields of the first two lines.

    The separator is the one that the first line shares most often with one of the next lines. If it shares none, it is
    the one that it has most of, a comma if it has none. Where another one than the comma parts the line into numbers,
    the commas in it are decimal ones. Separators and line breaks within quotes belong to a field. UnicodeDecodeError if
    the lines are not UTF-8. ValueError for the line with which Excel is told the separator.
    """
    with path.open(encoding="utf-8-sig") as file:
        header, *following = (filled_line(file) for _ in range(ROWS))
    if OF_EXCEL.fullmatch(header):
        remedy = "remove this line, which is for Excel"
        raise ValueError(refusal("task.path", "a table whose first line names the columns", header.strip(), remedy))
    plain, *below = (QUOTED.sub("", line) for line in (header, *following))
    by_numbers = (each for each in SEPARATORS[1:] if each in plain and all(map(ROW.fullmatch, plain.split(each))))
    common = {each: max(min(plain.count(each), line.count(each)) for line in below) for each in SEPARATORS}
    best = next(by_numbers, max(SEPARATORS, key=lambda each: (common[each], plain.count(each))))
    if path.suffix.lower() == ".tsv" and "\t" in plain:
        best = "\t"
    first, second = (next(csv.reader([line], delimiter=best), [""]) for line in (header, following[0]))
    return best, first, second


def filled_line(file: IO[str]) -> str:
    """The next line that is not empty, as polars reads them; empty at the end of the file."""
    while (line := whole_line(file)) and not line.strip("\r\n"):
        pass
    return line


def whole_line(file: IO[str]) -> str:
    """The next line, with those that fields in quotes continue."""
    line = file.readline()
    for _ in range(LINES):
        if OPEN.search(QUOTED.sub("", line)):
            line += file.readline()
    return line


def line_end(path: Path) -> str:
    """A line feed, or a carriage return in files that have it alone, as of old Macs and some instruments."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return "\r" if whole_line(file).endswith("\r") else "\n"


def has_no_header(names: Sequence[str], following: Sequence[str]) -> bool:
    """True if the first line is a row without names.

    That is so if all fields are numbers or dates, and not `numbered_names`. It is also so if some are, and the line
    below has numbers and texts in the same places, with a decimal number, a date or an equal text among them. Fields
    that mean no value count in neither line. Many numbers that ascend, in the first line alone, are names.
    """
    found, below = (["" if field.strip() in WORDS else field.strip() for field in line] for line in (names, following))
    if ascent(found) == 1 and ascent(below) < 0.75:  # such as wavelengths
        return False
    numbers = [bool(ROW.fullmatch(name)) for name in found]
    if all(numbers):
        return not numbered_names(found, below)
    pairs = [(name, field, number) for name, field, number in zip(found, below, numbers) if name and field]
    alike = any(numbers) and all(number == bool(ROW.fullmatch(field)) for _, field, number in pairs)
    return alike and any(not name.isdigit() if number else name == field for name, field, number in pairs)


def numbered_names(found: Sequence[str], below: Sequence[str]) -> bool:
    """True for different whole numbers that are names, such as years, depths and numbers of sensors.

    They are if they count from 0 or 1. They are, too, if the line below differs: by texts, by decimals alone, by the
    numbers of digits, or because it does not ascend as they do, in steps of 1, or three or more in any steps.
    """
    if not all(name.isdigit() for name in found) or len(set(found)) < len(found):
        return False
    pairs = [(name, field) for name, field in zip(found, below) if field]
    fields = [field for _, field in pairs]
    if not all(map(ROW.fullmatch, fields)) or (fields and all("." in field for field in fields)):
        return True
    steps, under = steps_of([name for name, _ in pairs] if len(pairs) > 1 else found), steps_of(fields)
    counts = found[0] in ("0", "1") and set(steps_of(found)) <= {1}
    by_ones = set(steps_of(found)) == {1} and steps != under
    ascend = len(found) > 2 and min(steps, default=0) > 0 >= min(under, default=0)
    return counts or by_ones or ascend or any(digits(name) != digits(field) for name, field in pairs)


def steps_of(fields: Sequence[str]) -> list[float]:
    """Differences of the numbers that fields begin with."""
    numbers = [float(found[0]) for field in fields if (found := BEGINNING.match(field))]
    return [later - earlier for earlier, later in pairwise(numbers)]


def digits(number: str) -> int:
    """Number of digits in front of the decimal point."""
    return len(re.split(r"[.,eE]", number.lstrip("-+"))[0])


def ascent(fields: Sequence[str]) -> float:
    """The share of the numbers that fields begin with which is larger than the one before; 0 for few numbers."""
    steps = steps_of([field for field in fields if ROW.fullmatch(field)])
    return sum(step > 0 for step in steps) / len(steps) if len(steps) >= 9 else 0.0


def with_plain_names(frame: "pl.DataFrame", names: Sequence[str]) -> "pl.DataFrame":
    """The table without spaces around names and line breaks in them, and without columns of neither name nor values.

    The former come from hand-made headers, the latter from separators at the end of every line. A column of values
    without a name, as pandas and R write for the numbers of the rows, is called column_1 if it is the first. names: as
    written in the file, where polars gives a new one to the second of equal names.
    """
    given = names if len(names) == frame.width else frame.columns
    pairs = {
        column.name: " ".join(name.split()) or f"column_{place}"
        for place, (column, name) in enumerate(zip(frame, given), start=1)
        if name.strip() or column.null_count() < frame.height
    }
    plain = list(pairs.values())
    for name in plain:
        if plain.count(name) > 1:
            raise ValueError(refusal("task.path", "a table whose columns have different names", name, "it is twice"))
    return frame.select(list(pairs)).rename(pairs)


def require_separator(frame: "pl.DataFrame", separator: str) -> None:
    """Raise ValueError for a table of one column whose fields all hold spaces, which separate its columns.

    If they hold another one of `SEPARATORS`, too, the first line has fewer fields than the others.
    """
    import polars as pl

    column = frame.to_series()
    if frame.width == 1 and column.dtype == pl.String and column.str.contains(r"\S\s+\S").all():
        if column.str.contains(f"[{SEPARATORS.replace(separator, '')}]").all():
            remedy = "the lines have more fields than the first, which must name the columns"
            raise ValueError(refusal("task.path", "a table", column.drop_nulls()[0], remedy))
        wanted = "a table whose columns are separated by comma, semicolon, tab or |"
        raise ValueError(refusal("task.path", wanted, column.drop_nulls()[0], "write one of them between the fields"))
