"""Learnt lag of gradient estimators against another quantity."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bptt.figures.style import COLOURS, STYLE

MARKERS = "osD^v*"


def learnt_lags(
    points: Mapping[str, Sequence[tuple[str, str, float, float]]], *, label: str, log: bool, titles: Mapping[str, str]
) -> Figure:
    """Learnt lag in timesteps, one panel a task; colours are estimators, markers are cells.

    points: (estimator, cell, x, learnt lag) by task. label: of the x-axis; log: logarithmic. titles: of the panels.
    """
    estimators = list(dict.fromkeys(each[0] for rows in points.values() for each in rows))
    cells = list(dict.fromkeys(each[1] for rows in points.values() for each in rows))
    colour = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(estimators)}
    marker = {name: MARKERS[number % len(MARKERS)] for number, name in enumerate(cells)}
    filled = {name: number < len(COLOURS) for number, name in enumerate(estimators)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * max(1, len(points)) + 2, 3.6), dpi=100)
        axes = figure.subplots(1, max(1, len(points)), squeeze=False).flat
        for axis, (task, rows) in zip(axes, points.items()):
            for estimator, cell, x, lag in rows:
                face = colour[estimator] if filled[estimator] else "none"
                axis.plot(x, lag, marker[cell], color=colour[estimator], markerfacecolor=face)
            axis.set_title(titles[task], fontsize=9)
            axis.set_xlabel(label)
            axis.set_ylabel("learnt lag, timesteps")
            if log:
                axis.set_xscale("log")
        shown = [
            Line2D([], [], linestyle="", marker="o", color=colour[name], label=name)
            if filled[name]
            else Line2D([], [], linestyle="", marker="o", color=colour[name], markerfacecolor="none", label=name)
            for name in estimators
        ]
        shown += [Line2D([], [], linestyle="", marker=marker[name], color="grey", label=name) for name in cells]
        figure.legend(handles=shown, loc="outside right upper", fontsize=7)
    return figure
