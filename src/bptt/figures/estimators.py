"""Learnt lag of gradient estimators against another quantity."""

from collections.abc import Mapping, Sequence
from itertools import product

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from bptt.figures.style import COLOURS, STYLE

MARKERS = "osD^v*"
APART = 1.3  # points (1/72 inch) between markers of equal lag

Setting = tuple[str, str]  # task, cell
Point = tuple[str, float, float]  # estimator, x, learnt lag in timesteps


def learnt_lags(
    points: Mapping[Setting, Sequence[Point]], *, label: str, log: bool, titles: Mapping[Setting, str]
) -> Figure:
    """Learnt lag, a column of panels for each task and a row for each cell; one colour and marker an estimator.

    Markers are drawn slightly above or below their lag, because many estimators learn the same.

    label: of the x-axis; log: logarithmic. titles: of the panels.
    """
    tasks, cells = (list(dict.fromkeys(panel[part] for panel in points)) or [""] for part in (0, 1))
    estimators = list(dict.fromkeys(each[0] for found in points.values() for each in found))
    styles = dict(zip(estimators, product(MARKERS, COLOURS)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * len(tasks) + 1.2, 2.5 * len(cells) + 0.4), dpi=100)
        axes = figure.subplots(len(cells), len(tasks), squeeze=False, sharex="col", sharey="col")
        for (row, cell), (column, task) in product(enumerate(cells), enumerate(tasks)):
            axis = axes[row, column]
            for estimator, x, lag in points.get((task, cell), ()):
                marker, colour = styles[estimator]
                shift = (len(estimators) / 2 - estimators.index(estimator)) * APART / 72
                (drawn,) = axis.plot(x, lag, marker, color=colour, markersize=5, alpha=0.85)
                drawn.set_transform(axis.transData + ScaledTranslation(0, shift, figure.dpi_scale_trans))
            axis.set_title(titles.get((task, cell), f"{task}, {cell}"), fontsize=9)
            axis.yaxis.set_major_locator(MaxNLocator(6, integer=True))
            axis.margins(y=0.15)
            if row == len(cells) - 1:
                axis.set_xlabel(label)
            if column == 0:
                axis.set_ylabel("learnt lag, timesteps")
            if log:
                log_axis(axis)
        shown = [
            Line2D([], [], linestyle="", marker=marker, color=colour, label=name)
            for name, (marker, colour) in styles.items()
        ]
        figure.legend(handles=shown, loc="outside right upper", fontsize=8)
    return figure


def log_axis(axis: Axes) -> None:
    """A logarithmic x-axis with the ticks 1, 2 and 5 of each decade."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.tick_params(axis="x", labelsize=7)
