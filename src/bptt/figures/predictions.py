"""Predictions and targets against the row of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bptt.figures.style import COLOURS, STYLE, shortened

ROWS = 300  # largest number of rows shown
PANELS = 4
MARK = " predicted"  # suffix of the names of predicted columns


def predictions(columns: Mapping[str, Sequence[Any]], *, title: str = "") -> Figure | None:
    """First rows of up to four numeric columns with their predictions. None if no numeric column is predicted.

    columns: as returned by `Task.tabulate`: targets NAME and predictions "NAME predicted"; missing values are None.
    """
    names = [name.removesuffix(MARK) for name in columns if name.endswith(MARK)]
    numbers = [name for name in names if name in columns and all(map(is_number, columns[name + MARK][:ROWS]))][:PANELS]
    if not numbers:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 0.6 + 2.2 * len(numbers)), dpi=100)
        for axis, name in zip(figure.subplots(len(numbers), 1, squeeze=False, sharex=True).flat, numbers):
            targets = [float("nan") if value is None else value for value in columns[name][:ROWS]]
            axis.plot(range(len(targets)), targets, color="black", linewidth=1, label="target")
            axis.plot(
                range(len(targets)), columns[name + MARK][:ROWS], color=COLOURS[1], linewidth=1.2, label="predicted"
            )
            axis.set_ylabel(shortened(name, 24))
            axis.legend(loc="upper right")
        axis.set_xlabel("row of the table")
        if title:
            figure.suptitle(shortened(title, 90), fontsize=10)
    return figure


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
