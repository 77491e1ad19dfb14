"""Confusion matrices."""

from collections.abc import Sequence

import matplotlib
import torch
from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor

from bptt.figures.style import STYLE, shortened

MOST_NUMBERS = 12  # classes up to which each cell shows its count
MOST_NAMES = 40  # classes up to which each has a name on the axes


def confusion_matrix(counts: Int[Tensor, "V V"], names: Sequence[str], *, title: str = "") -> Figure:
    """Number of sequences or timesteps by true class (rows) and predicted class (columns).

    Colours are shares of the true class, so that rare classes are as visible as frequent ones.
    """
    number = len(names)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    size = min(9.0, 3.0 + 0.32 * number)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(size + 0.8, size), dpi=100)
        axis = figure.subplots()
        image = axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        axis.grid(visible=False)
        if number <= MOST_NAMES:
            labels = [shortened(name, 16) for name in names]
            axis.set_xticks(range(number), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
            axis.set_yticks(range(number), labels)
        if number <= MOST_NUMBERS:
            for row, column in torch.cartesian_prod(torch.arange(number), torch.arange(number)).tolist():
                count = int(counts[row, column])
                colour = "white" if shares[row, column] > 0.6 else "black" if count else "0.7"
                axis.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
        axis.set_xlabel("predicted class")
        axis.set_ylabel("true class")
        figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
        if title:
            axis.set_title(shortened(title, int(11 * size)), fontsize=8)
    return figure
