"""Tables in users' files, read by polars."""

import csv
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bptt.contracts import refusal
from bptt.tasks.blank_lines import without_blank_lines
from bptt.tasks.date_forms import with_dates
from bptt.tasks.files import regular_file, uncompressed_text
from bptt.tasks.identifiers import with_names_apart
from bptt.tasks.missing_values import Missing
from bptt.tasks.number_texts import has_decimal_commas, plain, points_fit_thousands, with_numbers
from bptt.tasks.table_header import (
    has_no_header,
    line_end,
    require_separator,
    separator_and_lines,
    with_plain_names,
)

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

TABLES = (".csv", ".tsv", ".parquet")


def read_table(
    path: Path, missing: Missing, *, names: str | None = None, forms: dict[str, str] | None = None
) -> "pl.DataFrame":
    """Read CSV (separated by comma, semicolon, tab or |) or Parquet. ValueError with polars' reason in one line.

    names: a column of names of CSV, which stays as written where names such as 007 and 7 are one number or date.
    forms: of the dates of another table, by column; those of this table take their place (`date_forms.with_dates`).
    """
    import polars as pl

    wanted = f"a table, {' '.join(TABLES)}"
    if path.suffix.lower() not in TABLES:
        raise ValueError(refusal("task.path", wanted, str(path)))
    regular_file(path, wanted)
    parquet = path.suffix.lower() == ".parquet"
    separator = ","
    try:
        if parquet:
            frame = pl.read_parquet(path, glob=False)
            written = frame.columns
        else:
            frame, written, separator = from_text(path, wanted, missing, names)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError, csv.Error) as error:
        reason = str(error).strip().split("\n")[0]
        if "more fields" in reason:
            reason = "lines have more fields than the first, which must name the columns, parted by , ; tab or |"
        if "utf-8" in reason:
            reason = "it is not in UTF-8; convert it first: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
        raise ValueError(f"task.path must be {wanted}, got {str(path)!r}, which polars cannot read: {reason}") from None
    if not frame.height:
        raise ValueError(refusal("task.path", "a table with rows", str(path), "it has a header alone"))
    frame = with_plain_names(frame, written).with_columns(pl.col(pl.Int128, pl.UInt128).cast(pl.Float64))
    if parquet:
        return with_dates(missing.without_texts(frame, kept=[names]), forms)
    as_written = None if names not in frame.columns else frame[names]
    empty = {name: missing.words if name == names else missing.texts for name in frame.columns}
    frame = with_dates(with_numbers(frame, empty, separator), forms)
    require_separator(frame, separator)
    return frame if as_written is None else with_names_apart(frame, as_written)


def from_text(path: Path, wanted: str, missing: Missing, kept: str | None) -> tuple["pl.DataFrame", list[str], str]:
    """The table, the names of its columns as they are written in the first line, and the separator.

    Rows of separators alone at the end, as of spreadsheets, are left out.

    kept: a column kept as texts. So are numbers that may have points between thousands (`with_numbers`).
    """
    import polars as pl

    uncompressed_text(path, wanted)
    separator, names, following = separator_and_lines(path)
    if has_no_header(names, following):
        remedy = (
            f"it has {separator.join(names)[:40]!r} there; write a line of names above, or begin its names with letters"
        )
        raise ValueError(refusal("task.path", "a table whose first line names the columns", str(path), remedy))
    form: dict[str, Any] = {
        "separator": separator,
        "null_values": missing.words,
        "eol_char": line_end(path),
        "glob": False,
    }
    columns = pl.read_csv(path, **form, n_rows=1, infer_schema_length=0).columns
    called = [" ".join(name.split()) or f"column_{place}" for place, name in enumerate(columns, start=1)]
    texts = {column: pl.String for column, name in zip(columns, called) if name == kept}
    frame = pl.read_csv(path, **form, infer_schema_length=None, schema_overrides=texts)
    written = (plain(column, missing.texts) for column in frame if column.dtype == pl.String)
    if separator != "," or any(map(has_decimal_commas, written)):
        beginning = pl.read_csv(path, **form, n_rows=1000, infer_schema_length=0)
        pointed = {column.name: pl.String for column in frame if column.dtype == pl.Float64}
        pointed = {name: kind for name, kind in pointed.items() if points_fit_thousands(plain(beginning[name], []))}
        if pointed:
            frame = pl.read_csv(path, **form, infer_schema_length=None, schema_overrides=texts | pointed)
    frame = without_blank_lines(frame, path, separator)
    if frame.width > 1 and empty_rows(frame.tail(1)).any():
        written_rows = pl.read_csv(path, **form | {"null_values": None}, infer_schema_length=0)  # NaN is no empty field
        filled = empty_rows(without_blank_lines(written_rows, path, separator)).not_().arg_true()
        frame = frame.head(1 + (filled[-1] if len(filled) else -1))
    return frame, names, separator


def empty_rows(frame: "pl.DataFrame") -> "pl.Series":
    """True for rows whose fields are all empty."""
    import polars as pl

    texts = pl.all().cast(pl.String).str.strip_chars().fill_null("")
    return frame.select(pl.all_horizontal(texts == "")).to_series()


def joined(frames: "Sequence[pl.DataFrame]", files: str) -> "pl.DataFrame":
    """The rows of several tables with the same columns. ValueError if a column is time in some alone.

    A column without a value in one table may be of any kind in the others.
    """
    import polars as pl

    for name in frames[0].columns:
        kinds = {frame[name].dtype.is_temporal() for frame in frames if frame[name].null_count() < frame.height}
        if len(kinds) > 1:
            raise ValueError(refusal(f"column {name!r}", f"time in all of {files}, or in none", "both"))
    try:
        return pl.concat(frames, how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{files} must have columns of the same types, got {str(error).splitlines()[0]}") from None


def with_empty_columns(frame: "pl.DataFrame", names: Sequence[str]) -> "pl.DataFrame":
    """The table with a column of missing values for each name that it lacks."""
    import polars as pl

    return frame.with_columns(pl.lit(None).alias(name) for name in names if name not in frame.columns)


def require_columns(columns: Sequence[str], names: Sequence[str], *, key: str) -> None:
    """Raise ValueError if a file with these columns lacks one of the names."""
    for name in names:
        if name not in columns:
            shown = ", ".join(columns[:20]) + (", …" if len(columns) > 20 else "")
            raise ValueError(refusal(key, f"a column of the file ({shown})", name))


def num_channels(columns: Sequence[str]) -> int:
    """Number of columns without a name, such as those of arrays and sounds; they are called 0, 1, …."""
    return next(number for number in count() if str(number) not in columns)


def require_channels(columns: Sequence[str], expected: int) -> None:
    """Raise ValueError if a file has more columns without a name than that of the training data."""
    if num_channels(columns) > expected > 0:
        wanted = f"in {expected} columns, as in training"
        raise ValueError(refusal("the data", wanted, num_channels(columns), "their order alone says which is which"))


def require_rate(rate: int | None, expected: int | None) -> None:
    """Raise ValueError if a sound has another number of samples a second than those of training."""
    if None not in (rate, expected) and rate != expected:
        wanted = f"sounds of {expected} samples a second, as in training"
        raise ValueError(refusal("the data", wanted, rate, "resample them"))
