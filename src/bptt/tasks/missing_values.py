"""Missing values in users' files: empty fields, the usual words, and numbers and texts that a user names."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import refusal
from bptt.tasks.rows import Rows, Values

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

WORDS = [
    "", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "NAN", "-nan", "-NaN", "null", "NULL",
    "None", "?", "-",
]  # fmt: skip
# Numbers that often stand for a missing value: of loggers, integers of 16 bits, well logs, climate models and netCDF.
MARK = re.compile(r"-?99+(\.9+)?|-32768|32767|-999\.25|-?1e\+(20|30)|9\.96921e\+36")


class Missing:
    """Values that mean no value: numbers, in columns of numbers; texts, in fields of CSV and in texts of Parquet.

    words: the texts. texts: also the numbers, as texts. Numbers do not count in columns that identify rows or begin
    episodes.

    Raises ValueError if `given` is neither one of them nor a list of them.
    """

    def __init__(self, given: Any = None):
        values = [] if given is None else [given] if isinstance(given, str | int | float) else given
        if not isinstance(values, Sequence) or any(
            isinstance(each, bool) or not isinstance(each, str | int | float) for each in values
        ):
            raise ValueError(refusal("task.missing", "a number, a text, or a list of them", given))
        self.words = [*WORDS, *(each for each in values if isinstance(each, str))]
        self.texts = [*WORDS, *(str(each) for each in values)]
        self.numbers = [float(each) for each in values if not isinstance(each, str)]

    def absent(self, values: Values, kind: np.dtype[Any]) -> Values:
        """The values with NaN in place of the numbers that mean none. kind: of the file's numbers."""
        return np.where(np.isin(values, self.stored(kind)), np.nan, values) if self.numbers else values

    def absent_in(self, frame: "pl.DataFrame", kept: Sequence[str | None] = ()) -> "pl.DataFrame":
        """The table with null in place of the numbers that mean none, in all columns but those `kept`."""
        import polars as pl

        columns = [name for name, kind in frame.schema.items() if kind.is_numeric() and name not in kept]
        stored = {name: self.stored(frame[name].head(0).to_numpy().dtype) for name in columns if self.numbers}
        return frame.with_columns(
            pl.when(pl.col(name).cast(pl.Float64).is_in(numbers)).then(None).otherwise(pl.col(name)).alias(name)
            for name, numbers in stored.items()
        )

    def without_texts(self, frame: "pl.DataFrame", kept: Sequence[str | None] = ()) -> "pl.DataFrame":
        """The table with null in place of the texts that mean none, in all columns and lists but those `kept`."""
        import polars as pl

        def present(texts: "pl.Expr") -> "pl.Expr":
            return pl.when(~texts.cast(pl.String).str.strip_chars().is_in(self.texts)).then(texts)

        kinds = {name: kind for name, kind in frame.schema.items() if name not in kept}
        texts = [name for name, kind in kinds.items() if kind in (pl.String, pl.Categorical, pl.Enum)]
        lists = [name for name, kind in kinds.items() if kind == pl.List(pl.String)]
        return frame.with_columns(
            *(present(pl.col(name)).alias(name) for name in texts),
            *(pl.col(name).list.eval(present(pl.element())) for name in lists),
        )

    def stored(self, kind: np.dtype[Any]) -> list[float]:
        """The numbers as a file holds them: in float32, −99.9 is −99.90000153; also in float64, if it came from there.

        Numbers beyond the range of a kind become infinite in it, and are left out.
        """
        if not np.issubdtype(kind, np.floating):
            return self.numbers
        from_float32 = [number for number in self.numbers if not (number.is_integer() and abs(number) < 2**53)]
        with np.errstate(over="ignore"):
            forms = [np.asarray(from_float32, np.float32), np.asarray(self.numbers).astype(kind)]
        rounded = np.concatenate([form.astype(np.float64) for form in forms])
        return [*self.numbers, *rounded[np.isfinite(rounded)].tolist()]


class RowsWithGaps:
    """Rows in which some numbers mean no value."""

    def __init__(self, rows: Rows, missing: Missing):
        self.rows, self.missing = rows, missing
        self.num_rows, self.num_columns, self.kind = rows.num_rows, rows.num_columns, rows.kind

    def read(self, start: int, stop: int) -> Values:
        return self.missing.absent(self.rows.read(start, stop), self.rows.kind)

    def checksum(self) -> str:
        return self.rows.checksum()


def suspected(values: NDArray[np.float64]) -> float | None:
    """A number such as −9999 that occurs twice or more and lies farther from all others than they from each other."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    for extreme in (finite.min(), finite.max()):
        others = finite[finite != extreme]
        if not MARK.fullmatch(f"{extreme:g}") or len(others) > len(finite) - 2 or len(np.unique(others[:1000])) < 2:
            continue
        if np.abs(others - extreme).min() > np.ptp(others):
            return float(extreme)
    return None


def hint(columns: Mapping[str, NDArray[np.float64]]) -> str:
    """The setting to use if numbers of these columns seem to mean no value; empty if none do."""
    found = {name: number for name, values in columns.items() if (number := suspected(values)) is not None}
    if not found:
        return ""
    name, number = next(iter(found.items()))
    wanted = ",".join(dict.fromkeys(map(short, found.values())))
    return f"; {short(number)} in {name} may mean no value: task.missing=[{wanted}]"


def short(number: float) -> str:
    """The shortest decimal that `Missing` takes for a number, in float32 if the number is one of float32."""
    digits = f"{number:g}"
    if float(digits) == number:
        return digits
    return str(np.float32(number)) if float(np.float32(number)) == number else repr(number)
