"""Bias, time and memory against the chunk size."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bptt.chunk_size import Cost, Moment, recommend
from bptt.figures.style import COLOURS, STYLE

LABELS = {
    "bias": "relative bias ‖ĝ − g‖ / ‖g‖",
    "microseconds": "time, µs a timestep",
    "megabytes": "saved tensors, MB",
}


def chunk_size_costs(moments: Sequence[Moment], *, delta: float) -> Figure:
    """Relative bias, time and memory against the chunk size at the last moment. The recommended size is marked.

    The bias of chunks at earlier moments is drawn in grey, later ones darker. Estimators without a size are horizontal
    lines.
    """
    last, best = moments[-1], recommend(moments, delta=delta)
    names = list(dict.fromkeys(each.name for each in last.costs))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4), dpi=100)
        for axis, (quantity, label) in zip(figure.subplots(1, 3), LABELS.items()):
            for colour, name in zip(COLOURS * len(names), names):
                _draw(axis, [each for each in last.costs if each.name == name], quantity, colour)
            if quantity == "bias":
                for number, moment in enumerate(moments[:-1]):
                    rows = sorted(
                        (each.size or 0, each.bias) for each in moment.costs if each.name == "chunked" and each.size
                    )
                    shade = str(0.85 - 0.5 * number / len(moments))
                    axis.plot(*zip(*rows), color=shade, linewidth=0.8, label=f"chunked, after {moment.updates} updates")
                axis.axhline(delta, color="black", linewidth=0.8)
                axis.annotate(f"δ = {delta:g}", (0, delta), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
            if best is not None:
                value = getattr(best, quantity)
                axis.plot(
                    best.size, value, "o", color="black", markersize=9, fillstyle="none", label=f"take {best.size}"
                )
            axis.set_xscale("log", base=2)
            horizon = last.horizon
            axis.axvspan(max(horizon.low, 0.9), max(horizon.high, 1.1), color="grey", alpha=0.15)
            axis.axvline(max(horizon.lag, 1), color="grey", linestyle="--", linewidth=0.8, label=f"horizon {horizon}")
            axis.set_xlabel("chunk size, stride or mean length, timesteps")
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
    return figure


def _draw(axis: Axes, rows: Sequence[Cost], quantity: str, colour: str) -> None:
    sized = sorted((each for each in rows if each.size), key=lambda each: each.size or 0)
    if not sized:
        axis.axhline(getattr(rows[0], quantity), color=colour, linestyle=":", label=rows[0].name)
        return
    spread = [each.spread for each in sized] if quantity == "bias" else None
    values = [getattr(each, quantity) for each in sized]
    sizes = [each.size or 0 for each in sized]
    axis.errorbar(sizes, values, yerr=spread, fmt=".-", color=colour, label=rows[0].name, capsize=2)
