"""Style of all figures, and their output to files and to TensorBoard."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # distinguishable by the colour-blind


DECADES = 12  # range of a logarithmic axis below the largest value; smaller gradients are rounding errors


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file with 200 dpi."""
    figure.savefig(path, dpi=200)


def pixels(figure: Figure) -> UInt8[Tensor, "rows columns 3"]:
    """Render a figure as an RGB image, for TensorBoard."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = canvas.get_width_height()
    return shown.view(height, width, 4)[..., :3]


def log_scale(axis: Axes, *shown: Tensor, decades: float = DECADES) -> None:
    """Make the y-axis logarithmic, at most `decades` down from the largest finite value. Unchanged if all are 0."""
    top = max(float(values.nan_to_num(0, posinf=0).max()) for values in shown)
    if top > 0:
        axis.set_yscale("log")
        low, _ = axis.get_ylim()
        axis.set_ylim(bottom=max(low, top * 10.0**-decades))


def shortened(name: str, width: int) -> str:
    """Shorten a label to `width` characters, and escape $ for matplotlib's math mode."""
    return (name if len(name) <= width else f"{name[: width - 1]}…").replace("$", r"\$")
