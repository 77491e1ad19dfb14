"""Columns of a series: which are inputs and targets, and their statistics over the training part."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bptt.contracts import refusal, setting
from bptt.tasks.rows import blocks
from bptt.tasks.series_file import SeriesFile
from bptt.tasks.standardise import Standardisation, constant_within_rounding, moments, require_finite
from bptt.tasks.streams import Stretch


def roles(
    file: SeriesFile,
    inputs: list[str] | None,
    targets: list[str] | None,
    *,
    horizons: Sequence[int],
    encoding: Mapping[str, Any] | None,
) -> tuple[list[str], list[str]]:
    """Names of the inputs and of the targets; None as names means all that are left."""
    if encoding:
        return list(encoding["inputs"]), list(encoding["targets"])
    plain = [name for name in file.groups if name not in file.calendar]
    if targets is None:
        base = plain if inputs is None else inputs
        targets = [name for name in base if name not in file.categories]
    for name in targets:
        if name in file.categories or name not in file.groups:
            remedy = "texts can only be inputs" if name in file.categories else "times and columns left out are none"
            raise ValueError(refusal("task.targets", "columns of numbers", name, remedy))
    default = [name for name in plain if not (0 in horizons and name in targets)]
    input_names = [*(default if inputs is None else inputs), *file.calendar]
    if not input_names or not targets:
        raise ValueError(
            f"task.inputs and task.targets must leave columns for both, got inputs {input_names} and targets {targets}"
        )
    return list(dict.fromkeys(input_names)), targets


def statistics(
    file: SeriesFile,
    parts: Sequence[Stretch],
    used: Sequence[int],
    *,
    standardise: bool,
    encoding: Mapping[str, Any] | None,
) -> Standardisation:
    """The standardisation of all columns by the training parts; the identity for texts, the calendar and unused ones.

    ValueError if a column that is used has no values there, or the same in all rows.
    """
    names = file.names
    if encoding:
        by_name = dict(zip(encoding["names"], zip(encoding["mean"], encoding["deviation"])))
        pairs = [by_name.get(name, (0.0, 1.0)) for name in names]
        return Standardisation(np.array([mean for mean, _ in pairs]), np.array([scale for _, scale in pairs]))
    count, mean, deviation = moments(
        values for part in parts for _, values in blocks(file.rows, part.start, part.limit)
    )
    texts = {index for name in file.categories for index in file.groups[name]}
    unused = [index for index in used if count[index] == 0]
    if unused:
        name = names[unused[0]]
        raise ValueError(
            f"column {name!r} must have values in the training part, got none; leave it out: "
            f"{setting('task.leave_out', *(names[index] for index in unused))}"
        )
    require_finite([names[index] for index in used], deviation[list(used)])
    numbers = [index for index in used if index not in texts]
    constant = [index for index in numbers if constant_within_rounding(mean[index], deviation[index])]
    if constant:
        name, got = names[constant[0]], f"{mean[constant[0]]:g} ± {deviation[constant[0]]:g}"
        raise ValueError(
            f"column {name!r} must vary in the training part by more than rounding, got {got}; leave it out: "
            f"{setting('task.leave_out', *(names[index] for index in constant))}"
        )
    for index in range(len(names)):
        if not standardise or index in texts or names[index] in file.calendar or index not in used:
            mean[index], deviation[index] = 0.0, 1.0
    return Standardisation(mean, deviation)


def with_gaps(file: SeriesFile, parts: Sequence[Stretch], input_names: Sequence[str]) -> list[int]:
    """The first index of each input that has missing values in the training parts."""
    first = [file.groups[name][0] for name in input_names]
    missing = np.zeros(len(first), dtype=bool)
    for part in parts:
        for _, values in blocks(file.rows, part.start, part.limit):
            missing |= np.isnan(values[:, first]).any(0)
    return [index for index, gaps in zip(first, missing) if gaps]
