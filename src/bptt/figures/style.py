"""Style of all figures, and their output to files and to TensorBoard."""

import errno
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import torch
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from bptt.atomic_files import replacing

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
# TensorBoard shows an image about 330 pixels wide, half of its own width.
IMAGE_STYLE = STYLE | {"font.size": 12, "figure.constrained_layout.use": False}
IMAGE_WIDTH, IMAGE_HEIGHT, IMAGE_DPI = 6.6, 3.9, 100  # inches, of which the height is without a legend
LEGEND_LINE = 0.24  # inches
MAX_LEGEND = 12  # entries of one panel's legend
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # distinguishable by the colour-blind
LONG = 100  # lags: a longer axis is logarithmic if nearly all horizons lie in its first tenth
DECADES = 12  # range of a logarithmic axis below the largest value; smaller gradients are rounding errors


def save(figure: Figure, path: Path) -> None:
    """Write a figure with 200 dpi, in the format of the path's suffix, atomically. The folder must exist."""
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    with replacing(path) as partial:
        figure.savefig(partial, dpi=200, format=path.suffix[1:])


def pixels(figure: Figure) -> UInt8[Tensor, "rows columns 3"]:
    """Render a figure as an RGB image, for TensorBoard."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = canvas.get_width_height()
    return shown.view(height, width, 4)[..., :3]


@contextmanager
def image_panel(heading: str, title: str) -> Iterator[Axes]:
    """A figure of one panel, 660 pixels wide: a heading, a smaller line below it, and the legend under the axes.

    The margins are fixed, because matplotlib's layout engine takes longer than drawing.
    """
    with matplotlib.rc_context(IMAGE_STYLE):
        figure = Figure(dpi=IMAGE_DPI)
        axis = figure.subplots()
        yield axis
        handles, labels = axis.get_legend_handles_labels()
        lines = math.ceil(len(handles[:MAX_LEGEND]) / 2)
        height = IMAGE_HEIGHT + LEGEND_LINE * lines
        figure.set_size_inches(IMAGE_WIDTH, height)
        figure.subplots_adjust(
            left=0.85 / IMAGE_WIDTH,
            right=1 - 0.2 / IMAGE_WIDTH,
            top=1 - 0.62 / height,
            bottom=(0.62 + LEGEND_LINE * lines) / height,
        )
        figure.text(0.15 / IMAGE_WIDTH, 1 - 0.1 / height, heading, va="top", fontsize=13, fontweight="bold")
        figure.text(0.15 / IMAGE_WIDTH, 1 - 0.36 / height, shortened(title, 88), va="top", fontsize=10)
        if handles:
            options: dict[str, Any] = {
                "ncols": 2,
                "fontsize": 10,
                "columnspacing": 1.2,
                "handlelength": 1.6,
                "labelspacing": 0.25,
            }
            place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.1 / IMAGE_WIDTH, 0.02 / height)}
            figure.legend(**place, handles=handles[:MAX_LEGEND], labels=labels[:MAX_LEGEND], **options)


def figure_of(axis: Axes) -> Figure:
    """The figure that holds a panel."""
    assert isinstance(axis.figure, Figure)
    return axis.figure


def legend_below(axis: Axes, *, columns: int = 2) -> None:
    """A legend under the axes, where no curve can cross it."""
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(
        handles[:MAX_LEGEND],
        labels[:MAX_LEGEND],
        fontsize=8,
        ncols=columns,
        loc="upper left",
        bbox_to_anchor=(-0.1, -0.16),
        columnspacing=1,
    )


def explain_line(axis: Axes, label: str, style: str, *, width: float = 1.2, colour: str = "black") -> None:
    """Name a kind of line in the legend."""
    axis.plot([], [], color=colour, linestyle=style, linewidth=width, label=label)


def explain_area(axis: Axes, label: str, colour: str = "grey", *, opacity: float = 0.35) -> None:
    """Name a kind of area in the legend."""
    axis.fill_between([], [], [], color=colour, alpha=opacity, linewidth=0, label=label)


def log_scale(axis: Axes, *shown: Tensor, decades: float = DECADES) -> None:
    """Make the y-axis logarithmic, at most `decades` down from the largest finite value. Unchanged if all are 0."""
    top = max(float(values.nan_to_num(0, posinf=0).max()) for values in shown)
    if top > 0:
        axis.set_yscale("log")
        low, _ = axis.get_ylim()
        axis.set_ylim(bottom=max(low, top * 10.0**-decades))


def lag_scale(axis: Axes, shown: Sequence[Tensor], horizons: Sequence[float]) -> None:
    """A lag axis that ends where the last curve (K, S) falls below rounding.

    Linear, on which exponential decay is a straight line; logarithmic beyond lag 1 if the curves are long and all
    horizons lie in the first tenth.
    """
    found = above_rounding(shown)
    end = int(found.max()) if len(found) else max(len(values) for values in shown) - 1
    if end > LONG and max(horizons, default=0) < end / 10:
        axis.set_xscale("symlog", linthresh=1, subs=[2, 5])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.set_xlim(0, end * 1.1)
    elif end:
        axis.set_xlim(-0.02 * end, end * 1.03 + 0.5)


def timestep_scale(axis: Axes, shown: Sequence[Tensor]) -> None:
    """An axis of timesteps that begins, if the curves (T, B) are long, where the first one rises above rounding."""
    found, end = above_rounding(shown), max(len(values) for values in shown)
    if end > LONG and len(found) and (length := end - int(found.min())) < end / 2:
        axis.set_xlim(end - 1.1 * length, end + 0.05 * length)


def above_rounding(shown: Sequence[Tensor]) -> Tensor:
    """Rows in which any curve is less than `DECADES` below the largest value of all."""
    floor = max(float(values.nan_to_num(0, posinf=0).max()) for values in shown) * 10.0**-DECADES
    return torch.cat([(values > floor).any(1).nonzero().flatten() for values in shown])


def shortened(name: str, width: int) -> str:
    """Shorten a label to `width` characters, and make it literal."""
    return literal(name if len(name) <= width else f"{name[: width - 1]}…")


def literal(text: str) -> str:
    """Escape $, between two of which matplotlib reads mathematics, and _ at the start, which hides it from legends.

    For names of folders, metrics and columns.
    """
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")
