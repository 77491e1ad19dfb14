"""Gradient flow: by lag, by timestep, and over training."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bptt.figures.style import (
    COLOURS,
    DECADES,
    STYLE,
    explain_area,
    explain_line,
    figure_of,
    image_panel,
    lag_scale,
    legend_below,
    literal,
    log_scale,
    timestep_scale,
)
from bptt.measures.gradient_flow import LayerFlow
from bptt.measures.horizon import EPSILON, Band, band, horizon

Flows = Mapping[str, LayerFlow] | Sequence[LayerFlow]  # by name, or in the order of layers

BAND = "5th to 95th percentile"
MISSING = "#dcdcdc"  # of a heat map's cells without a finite value


def gradient_flow(
    flows: Flows,
    history: Mapping[str, Tensor] | None = None,
    progress: Sequence[int] = (),
    *,
    epsilon: float = EPSILON,
    title: str = "",
) -> Figure:
    """Gradient by lag with the horizon, by timestep, and by timestep over training, for every layer.

    Curves are medians over sequences with the 5th to 95th percentile.

    flows: by name, or a list, whose names are layer1, layer2, …
    history: log₁₀ of the mean norm, (timesteps, moments of training), NaN if undefined. progress: the moments.
    epsilon: fraction of its largest value that the gradient still has at the horizon.
    """
    flows, history = named(flows), history or {}
    with matplotlib.rc_context(STYLE):
        columns = 3 if len(history) == 1 else 2
        rows = -(-(2 + len(history)) // columns)
        figure = Figure(figsize=(4.5 * columns, 3.9 * rows), dpi=100)
        (lags, timesteps, *maps) = figure.subplots(rows, columns, squeeze=False).flat
        draw_by_lag(lags, flows, epsilon=epsilon)
        draw_by_timestep(timesteps, flows)
        legend_below(lags)
        legend_below(timesteps)
        for axis in maps[len(history) :]:
            axis.set_axis_off()
        for axis, (name, values) in zip(maps, history.items()):
            draw_heat_map(axis, values, progress, f"{name}, log₁₀ mean ‖dL/dhₜ‖")
        if title:
            figure.suptitle(literal(title), fontsize=10)
    return figure


def gradient_by_lag(flows: Flows, *, epsilon: float = EPSILON, title: str = "") -> Figure:
    """The gradient of single losses by lag, with the horizon and the cut, as one image for TensorBoard."""
    with image_panel("Gradient by lag: how far back one loss reaches", title) as axis:
        draw_by_lag(axis, named(flows), epsilon=epsilon)
    return figure_of(axis)


def gradient_by_timestep(flows: Flows, *, title: str = "") -> Figure:
    """The gradient of the whole loss at every timestep, with chunk borders, as one image for TensorBoard."""
    with image_panel("Gradient at every timestep of the update", title) as axis:
        draw_by_timestep(axis, named(flows))
    return figure_of(axis)


def gradient_over_training(values: Tensor, progress: Sequence[int], *, title: str = "") -> Figure:
    """log₁₀ of the gradient's norm by timestep over training, as one image for TensorBoard."""
    with image_panel("Gradient at every timestep, over training", title) as axis:
        draw_heat_map(axis, values, progress, "log₁₀ mean ‖dL/dhₜ‖")
        if not values.isfinite().all():
            explain_area(axis, "no gradient: update was shorter, or it is not finite", MISSING, opacity=1)
    return figure_of(axis)


def named(flows: Flows) -> Mapping[str, LayerFlow]:
    """Flows by name; those of a list are layer1, layer2, …"""
    if isinstance(flows, Mapping):
        return flows
    return {f"layer{number}": flow for number, flow in enumerate(flows, start=1)}


def draw_by_lag(axis: Axes, flows: Mapping[str, LayerFlow], *, epsilon: float) -> None:
    """φ_k of every layer, its horizon in the layer's colour, and the end of the curves."""
    horizons = []
    for (name, flow), colour in zip(flows.items(), cycle(COLOURS)):
        reach = horizon(flow.by_lag["h"], num_losses=len(flow.losses), epsilon=epsilon)
        horizons.append(reach.lag)
        _curve(axis, band(flow.by_lag["h"]), colour, f"{name}, horizon {reach.interval}")
        axis.axvline(reach.lag, color=colour, linestyle=":")
    longest = max(len(flow.by_lag["h"]) for flow in flows.values())
    axis.axvline(longest - 0.5, color="black", linestyle="--", linewidth=0.8)
    explain_area(axis, BAND)
    explain_line(axis, f"horizon, ε = {100 * epsilon:g} % of the peak", ":")
    explain_line(axis, "gradient cut here, or start", "--", width=0.8)
    shown = [flow.by_lag["h"] for flow in flows.values()]
    _finish(axis, "lag k from a loss, timesteps", "‖∂L$_s$/∂h‖ at lag k, of one loss", *shown)
    lag_scale(axis, shown, horizons)


def draw_by_timestep(axis: Axes, flows: Mapping[str, LayerFlow]) -> None:
    """‖dL/dhₜ‖ of every layer and of its other state tensors, with chunk borders. Timestep 0 is the update's first."""
    colours = dict(zip(flows, cycle(COLOURS)))
    curves = {
        name if tensor == "h" else f"{name}, memory {tensor}": norms
        for name, flow in flows.items()
        for tensor, norms in flow.by_timestep.items()
    }
    memories = (name for name in curves if name not in colours)
    colours |= dict(zip(memories, islice(cycle(COLOURS), len(flows), None)))
    for name, norms in curves.items():
        _curve(axis, band(norms), colours[name], name)
    first = next(iter(flows.values()))
    for border in first.borders:
        axis.axvline(border - first.start - 0.5, color="black", linestyle="--", linewidth=0.8)
    explain_area(axis, BAND)
    if first.borders:
        explain_line(axis, "chunk border: gradient cut", "--", width=0.8)
    begins = f" (it begins at {first.start} of the batch)" if first.start else ""
    _finish(axis, f"timestep t of the update{begins}", "‖dL/dhₜ‖, per sequence", *curves.values())
    timestep_scale(axis, list(curves.values()))


def draw_heat_map(axis: Axes, values: Tensor, progress: Sequence[int], label: str) -> None:
    """Heat map with timesteps upwards and training to the right. A column extends from the previous look to its own.

    A gradient of 0 has the colour of the smallest value. Cells without a finite value are grey.
    """
    finite = values[values.isfinite()]
    high = float(finite.max()) if len(finite) else 0.0
    low = max(float(finite.min()), high - DECADES) if len(finite) else -1.0
    borders = [edge - 0.5 for edge in range(len(values) + 1)]
    shown = values.nan_to_num(nan=float("nan"), posinf=float("nan"), neginf=low).numpy()
    image = axis.pcolormesh([0, *progress], borders, shown, cmap="viridis", norm=Normalize(low, high))
    axis.set_facecolor(MISSING)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(False)
    axis.set_xlabel("timesteps trained")
    axis.set_ylabel("timestep t of the update")
    axis.figure.colorbar(image, ax=axis, label=label)


def _curve(axis: Axes, each: Band, colour: str, name: str) -> None:
    median, low, high = (curve.cpu() for curve in each)
    places = range(len(median))
    axis.plot(places, median, color=colour, label=literal(name), marker="o" if len(median) == 1 else "")
    axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def _finish(axis: Axes, xlabel: str, ylabel: str, *shown: Tensor) -> None:
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    log_scale(axis, *shown)
