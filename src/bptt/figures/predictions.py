"""Predictions and targets against the row of a table."""

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from bptt.figures.confusion import confusion_matrix
from bptt.figures.style import COLOURS, STYLE, shortened
from bptt.tasks.base import PREDICTED

ROWS = 300  # largest number of rows shown
PANELS = 4


def predictions(columns: Mapping[str, Sequence[Any]], *, title: str = "") -> Figure | None:
    """First rows of up to four numeric columns with their predictions, or the confusion matrix of predicted classes.

    columns: as returned by `Task.tabulate`: targets NAME and predictions "NAME predicted", of classes also
        "NAME probability"; missing values are None. Lines are interrupted between series or
        sequences, the first column, and between rows that do not follow each other.
    None if neither numbers nor classes with known targets are predicted.
    """
    names = [name.removesuffix(PREDICTED) for name in columns if name.endswith(PREDICTED)]
    if names and f"{names[0]} probability" in columns:
        return confused(columns[names[0]], columns[names[0] + PREDICTED], title=title)
    numbers = [name for name in names if name in columns and all(map(is_number, columns[name + PREDICTED][:ROWS]))][
        :PANELS
    ]
    if not numbers:
        return None
    place, label = along(columns)
    pieces = spans(columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 0.8 + 2.2 * len(numbers)), dpi=100)
        for axis, name in zip(figure.subplots(len(numbers), 1, squeeze=False, sharex=True).flat, numbers):
            for first, last in pieces:
                targets = [float("nan") if value is None else value for value in columns[name][first:last]]
                mark = "." if last - first == 1 else ""
                axis.plot(place[first:last], targets, mark, color="black", linewidth=1, label="target")
                predicted = columns[name + PREDICTED][first:last]
                axis.plot(place[first:last], predicted, mark, color=COLOURS[1], linewidth=1.2, label="predicted")
            axis.set_ylabel(shortened(name, 24))
        figure.axes[0].legend(handles=figure.axes[0].lines[:2], loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        axis.set_xlabel(label)
        if title:
            figure.axes[0].set_title(shortened(title, 70), fontsize=10, loc="left")
    return figure


def along(columns: Mapping[str, Sequence[Any]]) -> tuple[Sequence[Any], str]:
    """Positions of the rows on the horizontal axis and its label: a column of ascending dates, or numbers."""
    for name, values in columns.items():
        shown = values[:ROWS]
        dates = all(isinstance(value, date) for value in shown)
        if dates and all(earlier < later for earlier, later in pairwise(shown)):
            return shown, shortened(name, 24)
    return range(ROWS), "row of the table"


def spans(columns: Mapping[str, Sequence[Any]]) -> list[tuple[int, int]]:
    """First and last + 1 of the rows that belong together: of one series or sequence, or numbers one after another."""
    name, values = next(iter(columns.items()))
    pairs = list(pairwise(values[:ROWS]))
    rows = name in ("row", "row number") and all(isinstance(each, int) for each in values[:1])
    numbers = rows and all(one < next_ for one, next_ in pairs)  # else a series is called so
    borders = [
        place for place, (one, next_) in enumerate(pairs, start=1) if (next_ != one + 1 if numbers else next_ != one)
    ]
    return list(pairwise([0, *borders, min(ROWS, len(values))]))


def confused(targets: Sequence[Any], predicted: Sequence[Any], *, title: str) -> Figure | None:
    """Confusion matrix of the known targets; None if there are none."""
    known = [pair for pair in zip(targets, predicted) if pair[0] is not None]
    names = sorted({name for pair in known for name in pair})
    if not known:
        return None
    places = {name: place for place, name in enumerate(names)}
    counts = torch.zeros(len(names), len(names), dtype=torch.int64)
    for true, found in known:
        counts[places[true], places[found]] += 1
    return confusion_matrix(counts, [str(name) for name in names], title=title)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
