"""Gradient flow: by lag, by timestep, and over training."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bptt.figures.style import COLOURS, DECADES, STYLE, log_scale
from bptt.measures.gradient_flow import LayerFlow
from bptt.measures.horizon import EPSILON, Band, band, horizon


def gradient_flow(
    flows: Mapping[str, LayerFlow],
    history: Mapping[str, Tensor] | None = None,
    progress: Sequence[int] = (),
    *,
    epsilon: float = EPSILON,
    title: str = "",
) -> Figure:
    """Gradient by lag with the horizon, by timestep, and by timestep over training, for every layer by name.

    Curves are medians over sequences with the 5th to 95th percentile.

    history: log₁₀ of the mean norm, (timesteps, moments of training), NaN if undefined. progress: the moments.
    epsilon: fraction of its largest value that the gradient still has at the horizon.
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
            reach = horizon(flow.by_lag["h"], num_losses=len(flow.losses), epsilon=epsilon)
            lags.axvline(reach.lag, color=colours[name], linestyle=":", label=f"horizon {name}: {reach.interval}")
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
            "lag k from a loss, timesteps",
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
    """Heat map with timesteps upwards and training to the right. A column extends from the previous look to its own."""
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


def _curve(axis: Axes, each: Band, start: int, colour: str, name: str) -> None:
    mean, low, high = (curve.cpu() for curve in each)
    places = range(start, start + len(mean))
    axis.plot(places, mean, color=colour, label=name)
    axis.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def _finish(axis: Axes, xlabel: str, ylabel: str, *shown: Tensor) -> None:
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=8)
    log_scale(axis, *shown)
