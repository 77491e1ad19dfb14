"""A curve of one look, and its encoding in an event file.

The encoding is a header, one line of JSON, followed by little-endian arrays: the gaps between the places on the x-axis
as uint16 (omitted if all are 1), then the columns. If a gap is larger than 65535, the gaps are uint64, and the header
has the key `wide_gaps`. Columns on a logarithmic scale are int16: 700 log₁₀ of the value, rounded. This covers 10^±46
with a relative error of at most 0.17 %. Other columns are float32.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

PER_DECADE = 700
LARGEST = 32_000  # codes of finite values are within ±LARGEST; 0, infinity and NaN have codes outside
ZERO, INFINITE, NOT_A_NUMBER = -32_768, 32_767, 32_766
LARGEST_NARROW_GAP = 65_535

Fact = float | int | None | list[int]


@dataclass(frozen=True)
class Curve:
    """Columns of numbers over places on one axis, and single facts of the look.

    places: integers of shape (K,), ascending: lags, timesteps or chunk sizes.
    columns: values by name, of shape (K,) each. logarithmic: the values are ≥ 0 and shown on a logarithmic axis.
    facts: single numbers by name (horizon, update, …; None if undefined), and lists of integers (borders).
    """

    places: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.float64]]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    logarithmic: bool = True

    def at(self, indices: NDArray[np.int64]) -> "Curve":
        """The curve restricted to the points at `indices`."""
        columns = {name: column[indices] for name, column in self.columns.items()}
        return Curve(self.places[indices], columns, self.facts, self.logarithmic)


def to_bytes(curve: Curve) -> bytes:
    places = np.asarray(curve.places, dtype=np.int64)
    gaps = np.diff(places)
    assert len(places) > 0, "a curve has at least one point"
    assert (gaps > 0).all(), "places ascend"
    thinned = bool((gaps > 1).any())
    wide = bool((gaps > LARGEST_NARROW_GAP).any())
    header = {
        "first": int(places[0]),
        "points": len(places),
        "gaps": thinned,
        **({"wide_gaps": True} if wide else {}),
        "columns": list(curve.columns),
        "logarithmic": curve.logarithmic,
        "facts": {name: _plain(fact) for name, fact in curve.facts.items()},
    }
    columns = [np.asarray(column, dtype=np.float64) for column in curve.columns.values()]
    coded = [log_codes(column).tobytes() if curve.logarithmic else column.astype("<f4").tobytes() for column in columns]
    line = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([line, b"\n", gaps.astype(_gap_type(wide)).tobytes() if thinned else b"", *coded])


def from_bytes(data: bytes) -> Curve:
    """Inverse of `to_bytes`, up to rounding. ValueError if the bytes do not encode a curve."""
    try:
        line, _, rest = data.partition(b"\n")
        header = json.loads(line)
        points, names, logarithmic = int(header["points"]), list(header["columns"]), bool(header["logarithmic"])
        gaps = np.frombuffer(rest, _gap_type("wide_gaps" in header), points - 1 if header["gaps"] else 0)
        beyond = gaps.astype(np.int64).cumsum() if header["gaps"] else np.arange(1, points)
        places = np.concatenate([[0], beyond]) + int(header["first"])
        kind = np.dtype("<i2" if logarithmic else "<f4")
        codes = np.frombuffer(rest, kind, points * len(names), offset=gaps.nbytes).reshape(len(names), points)
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"the bytes of a curve must have its header and all of its points, got: {error}") from error
    values = from_log_codes(codes) if logarithmic else codes.astype(np.float64)
    return Curve(places, dict(zip(names, values, strict=True)), dict(header["facts"]), logarithmic)


def log_codes(values: NDArray[np.float64]) -> NDArray[np.int16]:
    """Non-negative values as int16 logarithms; see the module's docstring."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.round(np.log10(values) * PER_DECADE)
    codes = np.clip(np.nan_to_num(logarithms, nan=0, posinf=0, neginf=0), -LARGEST, LARGEST)
    codes[values == 0] = ZERO
    codes[np.isposinf(values)] = INFINITE
    codes[np.isnan(values) | (values < 0)] = NOT_A_NUMBER
    return codes.astype("<i2")


def from_log_codes(codes: NDArray[np.int16]) -> NDArray[np.float64]:
    values = 10.0 ** (codes.astype(np.float64) / PER_DECADE)
    values[codes == ZERO] = 0.0
    values[codes == INFINITE] = math.inf
    values[codes == NOT_A_NUMBER] = math.nan
    return values


def _gap_type(wide: bool) -> np.dtype[Any]:
    return np.dtype("<u8" if wide else "<u2")


def _plain(fact: Any) -> Fact:
    """Convert to a number that JSON can represent; None if it is not finite."""
    if isinstance(fact, list | tuple):
        return [int(each) for each in fact]
    if fact is None or isinstance(fact, int):
        return fact
    return float(fact) if math.isfinite(fact) else None
