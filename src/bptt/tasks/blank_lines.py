"""Blank lines of a table in text."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl


def without_blank_lines(frame: "pl.DataFrame", path: Path, separator: str) -> "pl.DataFrame":
    """The table without the rows of blank lines, for which polars has missing values.

    Lines of separators alone are timesteps without values. In a table of one column blank lines are, too.
    """
    import polars as pl

    first, *others = frame.columns
    no_text = pl.col(first).cast(pl.String).str.strip_chars().fill_null("") == ""
    empty = frame.select(no_text & pl.all_horizontal(pl.col(others).is_null())).to_series().to_numpy()
    if not others or not empty.any():
        return frame
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        next(row for row in rows if row)  # the header: polars skips blank lines above it
        blank = np.fromiter((len(row) < 2 and not "".join(row).strip() for row, _ in zip(rows, empty)), dtype=bool)
    empty[: len(blank)] &= blank
    return frame.filter(~empty)
