"""Singular values of the Jacobian product."""

from collections.abc import Mapping

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bptt.figures.style import COLOURS, STYLE, explain_line, figure_of, image_panel, legend_below, literal, log_scale


def spectrum(values: Mapping[str, Tensor], *, title: str = "") -> Figure:
    """Singular values of ∂h_T/∂h_t against the lag T − t.

    values: for every layer by name, singular values (T, H), or a norm (T, 1).
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * len(values), 3.4), dpi=100)
        for axis, (name, each) in zip(figure.subplots(1, len(values), squeeze=False).flat, values.items()):
            draw_spectrum(axis, each)
            axis.set_title(name, fontsize=9)
            legend_below(axis, columns=3)
        if title:
            figure.suptitle(literal(title), fontsize=10)
    return figure


def singular_values(values: Tensor, *, title: str = "") -> Figure:
    """Singular values of one layer, (T, H), as one image for TensorBoard."""
    with image_panel("Jacobian product of the recurrence, by lag", title) as axis:
        draw_spectrum(axis, values)
    return figure_of(axis)


def draw_spectrum(axis: Axes, values: Tensor) -> None:
    """All values of each timestep, the largest above the others, and 1, where a gradient keeps its length."""
    shown = values.flip(0).cpu()
    several = shown.shape[1] > 1
    axis.plot(shown[:, 1:], color=COLOURS[0], linewidth=0.5, alpha=0.4)
    mark = "o" if len(shown) == 1 else ""
    axis.plot(shown[:, 0], color=COLOURS[1], marker=mark, label="largest" if several else "Frobenius norm")
    log_scale(axis, shown)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.axhline(1, color="black", linewidth=0.8)
    if several:
        explain_line(axis, "the others", "-", colour=COLOURS[0])
    explain_line(axis, "1: no growth, no decay", "-", width=0.8)
    axis.set_xlabel("lag T − t, timesteps")
    axis.set_ylabel(f"{'singular values' if several else 'norm'} of ∂h$_T$/∂hₜ")
