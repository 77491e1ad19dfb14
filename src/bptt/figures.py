"""Measures as pictures: matplotlib figures without a window, and pixels for TensorBoard."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bptt.measures.gradient_flow import Band, LayerFlow, band, horizon

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the colour-blind too
DECADES = 12  # below the largest value, where curves end: smaller gradients are rounding
TICKS = 16  # at every place of a logarithmic axis, as long as there are no more


def gradient_flow(
    flows: Mapping[str, LayerFlow],
    history: Mapping[str, Tensor] | None = None,
    progress: Sequence[int] = (),
    *,
    epsilon: float = 0.01,
    title: str = "",
) -> Figure:
    """The gradient by lag with its horizon, by timestep, and by timestep over training, of every layer by name.

    Curves are means over sequences with the 5th to 95th percentile.

    history: log₁₀ of the mean norm, (timesteps, moments of training), NaN where there was none; progress: the moments.
    epsilon: what share of the gradient at lag 0 is left at the horizon.
    """
    history = history or {}
    with matplotlib.rc_context(STYLE):
        columns = 3 if len(history) == 1 else 2
        rows = -(-(2 + len(history)) // columns)
        figure = Figure(figsize=(4.5 * columns, 3.2 * rows), dpi=100)
        (lags, timesteps, *maps) = figure.subplots(rows, columns, squeeze=False).flat
        by_timestep, colours = {}, dict(zip(flows, cycle(COLOURS)))
        for name, flow in flows.items():
            _curve(lags, band(flow.by_lag["h"]), 0, colours[name], name)
            reach = horizon(flow.by_lag["h"].mean(1), epsilon=epsilon)
            lags.axvline(reach, color=colours[name], linestyle=":", label=f"horizon {name}: {reach}")
            for tensor, norms in flow.by_timestep.items():
                by_timestep[name if tensor == "h" else f"{name}, memory {tensor}"] = (flow.start, norms)
        first = next(iter(flows.values()))
        lags.axvline(
            len(first.by_lag["h"]) - 0.5, color="black", linestyle="--", linewidth=0.8, label="cut, or the start"
        )
        memories = (name for name in by_timestep if name not in colours)
        colours |= dict(zip(memories, islice(cycle(COLOURS), len(flows), None)))
        for name, (start, norms) in by_timestep.items():
            _curve(timesteps, band(norms), start, colours[name], name)
        for border in first.borders:
            timesteps.axvline(border - 0.5, color="black", linestyle="--", linewidth=0.8)
        _finish(
            lags,
            "lag k from the last loss, timesteps",
            "‖∂L$_s$/∂h‖ at lag k, of one loss",
            *(flow.by_lag["h"] for flow in flows.values()),
        )
        _finish(
            timesteps,
            "timestep t of the batch",
            "‖dL/dhₜ‖, per sequence",
            *(norms for _, norms in by_timestep.values()),
        )
        for axis in maps[len(history) :]:
            axis.set_axis_off()
        for axis, (name, values) in zip(maps, history.items()):
            heat_map(axis, values, progress, f"{name}, log₁₀ mean ‖dL/dhₜ‖")
        if title:
            figure.suptitle(title, fontsize=10)
    return figure


def heat_map(axis: Axes, values: Tensor, progress: Sequence[int], label: str) -> None:
    """Timesteps upwards, training to the right, colour by value; each column begins where the one before was seen."""
    finite = values[values.isfinite()]
    high = float(finite.max()) if len(finite) else 0.0
    low = max(float(finite.min()), high - DECADES) if len(finite) else -1.0
    borders = [edge - 0.5 for edge in range(len(values) + 1)]
    image = axis.pcolormesh([0, *progress], borders, values.numpy(), cmap="viridis", norm=Normalize(low, high))
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(False)
    axis.set_xlabel("timesteps trained")
    axis.set_ylabel("timestep of the update")
    axis.figure.colorbar(image, ax=axis, label=label)


def spectrum(values: Mapping[str, Tensor], *, title: str = "") -> Figure:
    """Singular values of ∂h_T/∂h_t against the lag T − t, of every layer by name: (T, H) each, or (T, 1) of a norm."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * len(values), 3.4), dpi=100)
        for axis, (name, each) in zip(figure.subplots(1, len(values), squeeze=False).flat, values.items()):
            shown = each.flip(0).cpu()
            axis.plot(shown[:, 1:], color=COLOURS[0], linewidth=0.5, alpha=0.4)
            axis.plot(shown[:, 0], color=COLOURS[1], label="largest" if shown.shape[1] > 1 else "Frobenius norm")
            _log_scale(axis, shown)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.axhline(1, color="black", linewidth=0.8)
            axis.set_xlabel("lag T − t, timesteps")
            axis.set_ylabel(f"{'singular values' if shown.shape[1] > 1 else 'norm'} of ∂h$_T$/∂hₜ")
            axis.set_title(name, fontsize=9)
            axis.legend(fontsize=8)
        if title:
            figure.suptitle(title, fontsize=10)
    return figure


def truncation_bias(curves: Sequence[Mapping[int, tuple[float, float, float]]], progress: Sequence[int]) -> Figure:
    """Cosine, relative bias and norm ratio against the chunk size; one line a look, later ones darker."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.2), dpi=100)
        labels = ("cosine with the exact gradient", "relative bias ‖ĝ − g‖ / ‖g‖", "norm ratio ‖ĝ‖ / ‖g‖")
        for index, (axis, label) in enumerate(zip(figure.subplots(1, 3), labels)):
            for place, (curve, moment) in enumerate(zip(curves, progress)):
                shade = matplotlib.colormaps["viridis_r"](0.1 + 0.9 * (place + 1) / len(curves))
                ends = place in (0, len(curves) - 1)
                name = f"after {moment:,} timesteps" if ends else None
                axis.plot(list(curve), [values[index] for values in curve.values()], ".-", color=shade, label=name)
            axis.set_xscale("log", base=2)
            axis.axhline(0 if index == 1 else 1, color="black", linewidth=0.8)
            axis.set_xlabel("chunk size, timesteps")
            axis.set_ylabel(label)
        axis.legend(fontsize=8)
    return figure


def chunk_size_costs(costs: Mapping[str, Sequence[Sequence[float]]], *, delta: float, horizon: int) -> Figure:
    """Relative bias, time and memory against the chunk size.

    costs: by estimator, rows of (size, bias, its spread, cosine, microseconds a timestep, megabytes); size 0 for
    estimators without one, which are drawn as a line across.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4), dpi=100)
        labels = {1: "relative bias ‖ĝ − g‖ / ‖g‖", 4: "time, µs a timestep", 5: "saved tensors, MB"}
        for axis, (column, label) in zip(figure.subplots(1, 3), labels.items()):
            for index, (name, rows) in enumerate(costs.items()):
                colour = COLOURS[index % len(COLOURS)]
                if rows[0][0] == 0:
                    axis.axhline(rows[0][column], color=colour, linestyle=":", label=name)
                    continue
                sizes, values = [row[0] for row in rows], [row[column] for row in rows]
                spread = [row[2] for row in rows] if column == 1 else None
                axis.errorbar(sizes, values, yerr=spread, fmt=".-", color=colour, label=name, capsize=2)
            axis.set_xscale("log", base=2)
            axis.axvline(max(horizon, 1), color="grey", linestyle="--", linewidth=0.8, label=f"horizon {horizon}")
            if column == 1:
                axis.axhline(delta, color="black", linewidth=0.8)
                axis.annotate(f"δ = {delta:g}", (0, delta), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
            axis.set_xlabel("chunk size, stride or mean length, timesteps")
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    return figure


Curve = Mapping[int, tuple[float, float]]  # mean and standard deviation over runs, by place on the x-axis


class Panel(NamedTuple):
    """Curves with their bands, by name.

    log_x: the base of a logarithmic axis. rounding: whether what lies `DECADES` below the largest value is left out.
    levels: curves that are the same everywhere. references: known values to compare with, in grey with their names at
    the right. marks: a place on the x-axis for a curve.
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


def panels(each: Sequence[Panel]) -> Figure:
    """Panels of curves in up to two columns. A name has one colour in a panel; the seventh line on are dashed."""
    with matplotlib.rc_context(STYLE):
        rows, columns = (len(each) + 1) // 2, min(2, len(each))
        figure = Figure(figsize=(4.75 * columns, 3.4 * rows), dpi=100)
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for panel, axis in zip(each, axes):  # in this order, which leaves the other axes to be blanked
            names = dict.fromkeys([*panel.curves, *panel.levels])
            for index, name in enumerate(names):
                colour, style = COLOURS[index % len(COLOURS)], "-" if index < len(COLOURS) else "--"
                if name in panel.curves:
                    _band_curve(axis, panel.curves[name], color=colour, linestyle=style, label=_shortened(name, 44))
                if name in panel.levels:
                    axis.axhline(panel.levels[name], color=colour, linestyle="--", label=_shortened(name, 44))
                if name in panel.marks:
                    axis.axvline(panel.marks[name], color=colour, linestyle=":")
            for name, value in panel.references.items():
                axis.axhline(value, color="grey", linestyle="--", linewidth=0.8)
                along = axis.get_yaxis_transform()  # from left to right 0 to 1
                axis.text(1.01, value, name, transform=along, va="center", fontsize=7, color="dimgrey")
            if panel.log_x:
                axis.set_xscale("log", base=panel.log_x)
                places = sorted({place for curve in panel.curves.values() for place in curve})
                if len(places) <= TICKS:
                    axis.set_xticks(places, [str(place) for place in places])
                    axis.set_xticks([], minor=True)
            if panel.log_y:
                means = (torch.tensor([mean for mean, _ in curve.values()]) for curve in panel.curves.values())
                _log_scale(axis, *means, decades=DECADES if panel.rounding else math.inf)
            axis.set_xlabel(panel.xlabel)
            axis.set_ylabel(panel.ylabel)
            axis.set_title(_shortened(panel.title, 60), fontsize=9)
            axis.legend(fontsize=8).set_in_layout(
                False
            )  # which would make room for long names, and leave none to curves
        for axis in axes:
            axis.set_axis_off()
    return figure


def benchmark(
    ratios: Mapping[str, tuple[float, float, float, float | None]],
    costs: Mapping[str, tuple[str, Mapping[int, float]]],
) -> Figure:
    """Ratios to a baseline with their quartiles and targets, and below them costs against a size.

    ratios: (median, lower quartile, upper quartile, target or none), by title. costs: (unit, value by size), by title;
    those of one unit share axes.
    """
    with matplotlib.rc_context(STYLE):
        units = list(dict.fromkeys(unit for unit, _ in costs.values()))
        figure = Figure(figsize=(10, 1 + 0.22 * len(ratios) + 3.6 * len(units)), dpi=100)
        heights = [1 + 0.22 * len(ratios), *[3.6] * len(units)]
        top, *below = figure.subplots(1 + len(units), 1, squeeze=False, height_ratios=heights).flat
        for place, (ratio, low, high, target) in enumerate(ratios.values()):
            missed = target is not None and ratio > target
            top.plot([low, high], [place, place], color=COLOURS[0], alpha=0.5, linewidth=3)
            top.plot(ratio, place, "o", color=COLOURS[1] if missed else COLOURS[0])
            if target is not None:
                top.plot(target, place, "|", color="black", markersize=10)
        top.set_yticks(range(len(ratios)), list(ratios), fontsize=7)
        top.invert_yaxis()
        top.set_xscale("log")
        top.axvline(1, color="black", linewidth=0.8)
        top.set_xlabel("ratio, with quartiles; | target; other colour: missed")
        for axis, unit in zip(below, units):
            for name, (own, values) in costs.items():
                if own == unit:
                    axis.loglog(list(values), list(values.values()), ".-", label=name)
            axis.set_xlabel("T, H or K")
            axis.set_ylabel(unit)
            axis.legend(fontsize=7)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file of printing quality."""
    figure.savefig(path, dpi=200)


def pixels(figure: Figure) -> UInt8[Tensor, "rows columns 3"]:
    """A figure as an image, for TensorBoard."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = canvas.get_width_height()
    return shown.view(height, width, 4)[..., :3]


def _curve(axis: Axes, each: Band, start: int, colour: str, name: str) -> None:
    mean, low, high = (curve.cpu() for curve in each)
    places = range(start, start + len(mean))
    axis.plot(places, mean, color=colour, label=name)
    axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def _band_curve(axis: Axes, curve: Curve, **style: Any) -> None:
    places, values = list(curve), torch.tensor(list(curve.values()), dtype=torch.float64).view(-1, 2)
    mean, deviation = values.unbind(1)
    axis.plot(places, mean, marker="." if len(places) < 30 else "", **style)
    axis.fill_between(places, mean - deviation, mean + deviation, color=style["color"], alpha=0.2, linewidth=0)


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _finish(axis: Axes, xlabel: str, ylabel: str, *shown: Tensor) -> None:
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8)
    _log_scale(axis, *shown)


def _log_scale(axis: Axes, *shown: Tensor, decades: float = DECADES) -> None:
    """Logarithmic, from the largest finite value down to where rounding begins; left as it is where all is 0."""
    top = max(float(values.nan_to_num(0, posinf=0).max()) for values in shown)
    if top > 0:
        axis.set_yscale("log")
        low, _ = axis.get_ylim()
        axis.set_ylim(bottom=max(low, top * 10.0**-decades))
