"""The time of day, of the week and of the year as inputs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bptt.contracts import refusal
from bptt.tasks.time_stamps import units_of_clock

if TYPE_CHECKING:  # imported when a table is read, since it takes a second
    import polars as pl

PERIODS = {"day": 24 * 3600, "week": 7 * 24 * 3600, "year": 365.2425 * 24 * 3600}  # seconds
FEATURES = [f"{function}({period})" for period in PERIODS for function in ("sin", "cos")]


def in_universal_time(stamps: "pl.Series") -> bool | None:
    """True for time stamps with a zone or counted since 1970, false for local times, None for dates."""
    import polars as pl

    if stamps.dtype == pl.Date:
        return None
    return units_of_clock(stamps) is not None or getattr(stamps.dtype, "time_zone", None) is not None


def require_zone(name: str, found: bool | None, expected: bool | None) -> None:
    """Raise ValueError for time stamps with a zone in place of those of training without, or the other way round."""
    if None not in (found, expected) and found != expected:
        if expected:
            form = "must have a zone or count from 1970, as in training, got local times"
            form += "; write them as 2024-05-31 12:00:00+02:00"
        else:
            form = "must be local times, as in training, got times with a zone or counted from 1970; write local times"
        raise ValueError(f"time stamps in {name!r} {form}")


def calendar_features(time: "pl.Series", wanted: Sequence[str] | None) -> dict[str, NDArray[np.float64]]:
    """sin and cos of the time of day, of the week and of the year, by name.

    wanted: names of the features to return. None: those that differ between rows and have a period of two rows or more.
    """
    import polars as pl

    units = units_of_clock(time)
    if units is not None:
        seconds = time.to_numpy() / units
    elif isinstance(time.dtype, pl.Date | pl.Datetime):
        seconds = time.cast(pl.Datetime("us")).to_physical().to_numpy() / 1e6
    else:
        wanted_time = f"false without dates, as {time.name!r} holds numbers, durations, or times of day alone"
        raise ValueError(refusal("task.calendar", wanted_time, True))
    features: dict[str, NDArray[np.float64]] = {}
    step = float(np.median(np.abs(np.diff(seconds)))) if len(seconds) > 1 else 0.0
    for period, size in PERIODS.items():
        angle = 2 * math.pi * (seconds % size) / size
        for function, values in (("sin", np.sin(angle)), ("cos", np.cos(angle))):
            name = f"{function}({period})"
            if np.ptp(angle) > 1e-6 and size >= 2 * step if wanted is None else name in wanted:
                features[name] = values
    return features
