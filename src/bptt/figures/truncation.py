"""Bias of the truncated gradient against the chunk size."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bptt.figures.style import STYLE, figure_of, image_panel, legend_below

Biases = Sequence[Mapping[int, tuple[float, float, float]]]  # cosine, relative, norm_ratio by chunk size, of every look

# In the order of the numbers: heading, y-axis, and the value of an exact gradient.
QUANTITIES = {
    "cosine": ("Cosine with the exact gradient", "cosine with the exact gradient", 1),
    "relative": ("Relative bias", "relative bias ‖ĝ − g‖ / ‖g‖", 0),
    "norm_ratio": ("Norm of the truncated gradient", "norm ratio ‖ĝ‖ / ‖g‖", 1),
}


def truncation_bias(curves: Biases, progress: Sequence[int]) -> Figure:
    """Cosine, relative bias and norm ratio against the chunk size; one line per look, later ones darker."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), dpi=100)
        for axis, quantity in zip(figure.subplots(1, 3), QUANTITIES):
            draw_bias(axis, curves, progress, quantity)
            legend_below(axis)
    return figure


def bias_by_chunk_size(
    curves: Biases, progress: Sequence[int], quantity: str, *, in_use: int | None = None, title: str = ""
) -> Figure:
    """One quantity against the chunk size, as one image for TensorBoard. in_use: the chunk size that trains."""
    heading = QUANTITIES[quantity][0]
    with image_panel(f"{heading}, by chunk size of estimator=chunked", title) as axis:
        draw_bias(axis, curves, progress, quantity)
        if in_use is not None:
            axis.axvline(in_use, color="black", linestyle=":", label=f"chunk size in use: {in_use}")
    return figure_of(axis)


def draw_bias(axis: Axes, curves: Biases, progress: Sequence[int], quantity: str) -> None:
    """One line a look, the first and the last of them named."""
    index = list(QUANTITIES).index(quantity)
    _, label, exact = QUANTITIES[quantity]
    for place, (curve, moment) in enumerate(zip(curves, progress)):
        shade = matplotlib.colormaps["viridis_r"](0.1 + 0.9 * (place + 1) / len(curves))
        ends = place in (0, len(curves) - 1)
        name = f"after {moment:,} timesteps" if ends else None
        axis.plot(list(curve), [values[index] for values in curve.values()], ".-", color=shade, label=name)
    axis.axhline(exact, color="black", linewidth=0.8, label="exact gradient")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("chunk size, timesteps")
    axis.set_ylabel(label)
