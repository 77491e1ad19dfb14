"""Bias of the truncated gradient against the chunk size."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from bptt.figures.style import STYLE


def truncation_bias(curves: Sequence[Mapping[int, tuple[float, float, float]]], progress: Sequence[int]) -> Figure:
    """Cosine, relative bias and norm ratio against the chunk size; one line per look, later ones darker."""
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
