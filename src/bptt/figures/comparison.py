"""Curves of several runs with bands over seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bptt.figures.style import COLOURS, DECADES, MAX_LEGEND, STYLE, legend_below, literal, log_scale, shortened

LONG_NAME = 28  # characters, of which two do not fit side by side
TICKS = 16  # up to this many places, a logarithmic axis has a tick at every place


Curve = Mapping[int, tuple[float, float]]  # mean and standard deviation over runs, by place on the x-axis


class Panel(NamedTuple):
    """Curves with bands, by name.

    log_x: base of a logarithmic x-axis. rounding: if True, values more than `DECADES` below the largest are omitted.
    points: single runs, as (x, y), by the name of their curve. ordered: the names ascend in a value, and so do their
    colours. share_y: panels with the same word have one y-range.
    levels: constant curves. references: known values to compare with, drawn in grey with their names at the right.
    marks: a place on the x-axis for each curve.
    """

    xlabel: str
    ylabel: str
    curves: Mapping[str, Curve]
    title: str = ""
    log_x: int | None = None
    log_y: bool = False
    rounding: bool = False
    levels: Mapping[str, float] = {}
    references: Mapping[str, float] = {}
    marks: Mapping[str, float] = {}
    points: Mapping[str, Sequence[tuple[float, float]]] = {}
    ordered: bool = False
    share_y: str = ""


def panels(each: Sequence[Panel]) -> Figure:
    """Panels of curves in up to two columns. A name has one colour in a panel; lines are dashed from the seventh on.

    Legends lie under the axes, where they hide no curve.
    """
    with matplotlib.rc_context(STYLE):
        rows, columns = (len(each) + 1) // 2, min(2, len(each))
        longest = max(len({*panel.curves, *panel.levels}) for panel in each)
        figure = Figure(figsize=(4.75 * columns, (3.2 + 0.17 * min(longest, MAX_LEGEND)) * rows), dpi=100)
        shared: dict[str, list[Axes]] = {}
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for panel, axis in zip(each, axes):  # `axes` second: zip must not consume the axes that are blanked below
            names = dict.fromkeys([*panel.curves, *panel.levels])
            for index, name in enumerate(names):
                colour, style = COLOURS[index % len(COLOURS)], "-" if index < len(COLOURS) else "--"
                if panel.ordered:
                    colour, style = to_hex(matplotlib.colormaps["viridis"](0.9 * index / max(1, len(names) - 1))), "-"
                if name in panel.points:
                    axis.plot(*zip(*panel.points[name]), "o", color=colour, markersize=3, alpha=0.5)
                if name in panel.curves:
                    _band_curve(axis, panel.curves[name], color=colour, linestyle=style, label=shortened(name, 44))
                if name in panel.levels:
                    axis.axhline(panel.levels[name], color=colour, linestyle="--", label=shortened(name, 44))
                if name in panel.marks:
                    axis.axvline(panel.marks[name], color=colour, linestyle=":")
            for name, value in panel.references.items():
                axis.axhline(value, color="grey", linestyle="--", linewidth=0.8)
                along = axis.get_yaxis_transform()  # x from 0 (left) to 1 (right)
                axis.text(1.01, value, literal(name), transform=along, va="center", fontsize=7, color="dimgrey")
            places = sorted({place for curve in panel.curves.values() for place in curve})
            if panel.log_x:
                axis.set_xscale("log", base=panel.log_x)
                if len(places) <= TICKS:
                    axis.set_xticks(places, [str(place) for place in places])
                    axis.set_xticks([], minor=True)
            elif places and places[-1] >= 10_000:  # long labels, which would overlap
                axis.locator_params(axis="x", nbins=4)
                axis.xaxis.set_major_formatter("{x:,.0f}")
            if panel.log_y:
                means = (torch.tensor([mean for mean, _ in curve.values()]) for curve in panel.curves.values())
                log_scale(axis, *means, decades=DECADES if panel.rounding else math.inf)
            axis.set_xlabel(panel.xlabel)
            axis.set_ylabel(panel.ylabel)
            axis.set_title(shortened(panel.title, 60), fontsize=9)
            legend_below(axis, columns=1 if max(map(len, names), default=0) > LONG_NAME else 2)
            if panel.share_y:
                shared.setdefault(panel.share_y, []).append(axis)
        for those in shared.values():
            ends = [end for axis in those for end in axis.get_ylim()]
            for axis in those:
                axis.set_ylim(min(ends), max(ends))
        for axis in axes:
            axis.set_axis_off()
    return figure


def _band_curve(axis: Axes, curve: Curve, **style: Any) -> None:
    places, values = list(curve), torch.tensor(list(curve.values()), dtype=torch.float64).view(-1, 2)
    mean, deviation = values.unbind(1)
    axis.plot(places, mean, marker="." if len(places) < 30 else "", **style)
    axis.fill_between(places, mean - deviation, mean + deviation, color=style["color"], alpha=0.2, linewidth=0)
