"""Eigenvalues of diagonal recurrences in the complex plane."""

from collections.abc import Mapping

import matplotlib
import torch
from jaxtyping import Complex
from matplotlib.figure import Figure
from torch import Tensor

from bptt.figures.style import COLOURS, STYLE


def ring(values: Mapping[str, Complex[Tensor, "N U"]]) -> Figure:
    """The eigenvalues of every layer by name, with the unit circle: outside it states would grow."""
    angle = torch.linspace(0, 2 * torch.pi, 200, dtype=torch.float64)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(values), 3.6), dpi=100)
        for axis, (name, each) in zip(figure.subplots(1, len(values), squeeze=False).flat, values.items()):
            points = each.flatten().cpu()
            axis.plot(angle.cos(), angle.sin(), color="black", linewidth=0.8)
            axis.scatter(points.real, points.imag, s=8, alpha=0.5, color=COLOURS[0], linewidths=0)
            axis.set_aspect("equal")
            axis.set_xlabel("Re a")
            axis.set_ylabel("Im a")
            axis.set_title(name, fontsize=9)
    return figure
