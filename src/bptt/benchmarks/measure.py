"""Interleaved measurements of variants; ratios with targets, and curves with exponents."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Row(NamedTuple):
    """Median and quartiles of the ratios measured / baseline of neighbouring repetitions, and both medians in `unit`.

    target: upper limit for the ratio.
    """

    title: str
    ratio: float
    low: float
    high: float
    measured: float
    baseline: float
    unit: str
    target: float | None = None

    def __str__(self) -> str:
        spread = f"({self.low:.3f} to {self.high:.3f})"
        values = f"{self.measured:.4g} / {self.baseline:.4g} {self.unit}"
        return f"{self.title:<58} {self.ratio:7.3f}  {spread:<19} {self.verdict:<13} {values}"

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return f"{'met' if self.ratio <= self.target else 'missed'}, {self.target:g}"


class Curve(NamedTuple):
    """Values in `unit` against a size x, and the exponent p of the power law x^p fitted to them."""

    title: str
    size: str
    unit: str
    points: dict[int, float]
    exponent: float

    def __str__(self) -> str:
        values = "  ".join(f"{size:g}: {value:.3g}" for size, value in self.points.items())
        return f"{self.title:<58} {self.size}^{self.exponent:.2f}  {self.unit}  {values}"


Found = Iterator[Row | Curve]


def now() -> float:
    """Time in seconds, after synchronising with the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def interleaved(
    variants: Mapping[str, Callable[[], float]], repetitions: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Results of each variant, measured in the order A B, B A, A B, … By default a first turn is discarded."""
    values: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(-warm_up, repetitions):
        for name in list(variants)[:: -1 if turn % 2 else 1]:
            measured = variants[name]()
            if turn >= 0:
                values[name].append(measured)
    return values


def row(
    title: str, measured: Sequence[float], baseline: Sequence[float], *, unit: str = "s", target: float | None = None
) -> Row:
    """Build a Row from interleaved measurements."""
    ratios = [each / base for each, base in zip(measured, baseline, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Row(title, middle, low, high, statistics.median(measured), statistics.median(baseline), unit, target)


def curve(title: str, size: str, points: Mapping[int, float], *, unit: str = "s") -> Curve:
    """Build a Curve. The exponent is the least-squares slope of the logarithms."""
    places, heights = (torch.tensor(list(each), dtype=torch.float64).log() for each in (points, points.values()))
    centred = places - places.mean()
    return Curve(title, size, unit, dict(points), float((centred * heights).sum() / centred.square().sum()))
