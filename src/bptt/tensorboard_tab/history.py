"""All curves of a run in one file, for notebooks."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bptt.atomic_files import replacing
from bptt.tensorboard_tab.curve import Curve, Fact

MAX_LOOKS = 512  # beyond that, every second look is dropped, which keeps the file below about 20 MB


class CurveHistory:
    """Curves by step and tag, saved as an uncompressed NPZ file.

    Arrays of the file for every tag, with N looks and at most K points (NaN if a curve has fewer):
    - TAG/step: (N,), timesteps that each sequence stream had advanced.
    - TAG/places: (N, K), lags, timesteps or chunk sizes. TAG/COLUMN: (N, K), float32, e.g. layer1/h/by_lag/median.
    - TAG/fact/NAME: (N,), or (N, largest number) for lists such as borders.
    And once, `looks`: the steps of all looks, of which every first, second, fourth, … is kept.
    """

    def __init__(self) -> None:
        self.looks: dict[str, dict[int, Curve]] = {}
        self.steps: list[int] = []

    @property
    def stride(self) -> int:
        """Every how many looks one is kept: the smallest power of 2 that keeps at most `MAX_LOOKS`."""
        return 1 << max(0, math.ceil(math.log2(max(1, len(self.steps)) / MAX_LOOKS)))

    def add(self, step: int, curves: Mapping[str, Curve]) -> None:
        """Add the curves of a look. After thinning, only every `stride`-th look is kept."""
        before = self.stride
        self.steps.append(step)
        if self.stride > before:
            kept = set(self.steps[:: self.stride])
            for tag, looks in self.looks.items():
                self.looks[tag] = {each: curve for each, curve in looks.items() if each in kept}
        if (len(self.steps) - 1) % self.stride == 0:
            for tag, curve in curves.items():
                self.looks.setdefault(tag, {})[step] = curve

    def save(self, path: Path) -> None:
        arrays = dict(self.arrays())
        if not arrays:
            return
        arrays["looks"] = np.array(self.steps, dtype=np.int64)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes them for `allow_pickle`

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for tag, looks in self.looks.items():
            curves = list(looks.values())
            yield f"{tag}/step", np.array(list(looks), dtype=np.int64)
            yield f"{tag}/places", padded([curve.places for curve in curves], np.float64)
            for name in curves[0].columns:
                yield f"{tag}/{name}", padded([curve.columns[name] for curve in curves], np.float32)
            for name in curves[0].facts:
                facts = [curve.facts[name] for curve in curves]
                yield f"{tag}/fact/{name}", fact_array(facts)

    @classmethod
    def load(cls, path: Path, *, until: int) -> "CurveHistory":
        """The looks in a file up to and including a step; empty if there is no file. ValueError if it is damaged."""
        if not path.exists():
            return cls()
        try:
            with path.open("rb") as opened, np.load(opened) as file:
                return cls._from_arrays({name: file[name] for name in file.files}, until=until)
        except Exception as error:  # numpy, zipfile and the columns raise exceptions of many types
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"{path} must be a whole file of curves, got {reason}") from error

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, np.ndarray], *, until: int) -> "CurveHistory":
        history = cls()
        for key in arrays:
            if not key.endswith("/step"):
                continue
            tag = key.removesuffix("/step")
            history.looks[tag] = {
                int(step): curve_at(arrays, tag, row) for row, step in enumerate(arrays[key]) if step <= until
            }
        history.looks = {tag: looks for tag, looks in history.looks.items() if looks}
        kept = max(history.looks.values(), key=len, default={})
        history.steps = [int(step) for step in arrays.get("looks", list(kept)) if step <= until]
        return history


def curve_at(arrays: Mapping[str, np.ndarray], tag: str, row: int) -> Curve:
    """One look of a tag in the arrays of the file."""
    kept = ~np.isnan(arrays[f"{tag}/places"][row])
    own = {name.removeprefix(f"{tag}/"): array[row] for name, array in arrays.items() if name.startswith(f"{tag}/")}
    step = own.pop("step")
    assert step.ndim == 0
    columns = {name: values[kept] for name, values in own.items() if "/" not in name}
    facts: dict[str, Fact] = {}
    for name, values in own.items():
        if not name.startswith("fact/"):
            continue
        numbers = [float(each) for each in np.atleast_1d(values) if not np.isnan(each)]
        several = values.ndim > 0
        facts[name.removeprefix("fact/")] = [int(each) for each in numbers] if several else next(iter(numbers), None)
    places = columns.pop("places").astype(np.int64)
    return Curve(places, columns, facts)


def padded(rows: list[np.ndarray], dtype: type) -> np.ndarray:
    """Rows of different lengths as one array (N, longest), padded with NaN."""
    table: np.ndarray = np.full((len(rows), max((len(row) for row in rows), default=0)), np.nan, dtype)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table


def fact_array(facts: list[Fact]) -> np.ndarray:
    if any(isinstance(fact, list) for fact in facts):
        return padded([np.asarray(fact if isinstance(fact, list) else []) for fact in facts], np.float64)
    return np.array([np.nan if fact is None else fact for fact in facts], dtype=np.float64)
