"""Bias, time and memory of every chunk size."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from bptt.figures.style import COLOURS, STYLE


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
