"""Columns that name series, sequences or classes, which must stay apart."""

from typing import TYPE_CHECKING

from bptt.contracts import refusal

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

EXACT = 2.0**53  # from here on, neighbouring whole numbers are the same in float64


def require_exact(column: "pl.Series") -> None:
    """Raise ValueError for whole numbers that are too long to differ: names and classes would be taken for others."""
    if column.dtype.is_float() and (column.is_finite() & (column.abs() >= EXACT)).any():
        example = int(column.filter(column.is_finite() & (column.abs() >= EXACT))[0])
        wanted = "names, or whole numbers of at most 15 digits (18 if all rows have one)"
        raise ValueError(refusal(f"column {column.name!r}", wanted, example, "write a letter before each"))


def with_names_apart(frame: "pl.DataFrame", as_written: "pl.Series") -> "pl.DataFrame":
    """The table with a column of names as texts, if as numbers, dates or booleans they would not be the same ones."""
    import polars as pl

    texts = as_written.cast(pl.String).str.strip_chars()
    texts = texts.set(frame[texts.name].is_null(), None)
    read = frame[texts.name]
    rounded = read.dtype.is_float() and bool((read.abs() >= EXACT).any())
    others = rounded or read.dtype == pl.Boolean or read.n_unique() != texts.n_unique()
    return frame.with_columns(texts) if others else frame


def require_names(column: "pl.Series") -> None:
    """Raise ValueError if sequences or series are numbered by decimals, among which 1.1 and 1.10 are the same."""
    if column.dtype.is_nested() or str(column.dtype) == "Binary":
        raise ValueError(refusal(f"column {column.name!r}", "numbers or texts as names", str(column.dtype)))
    require_exact(column)
    if column.dtype.is_float() and (column.drop_nulls() % 1 != 0).any():
        example = column.filter(column % 1 != 0)[0]
        wanted = "names or whole numbers, as 1.1 and 1.10 are the same"
        raise ValueError(refusal(f"column {column.name!r}", wanted, example, "write a letter before each"))
