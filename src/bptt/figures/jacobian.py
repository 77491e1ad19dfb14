"""Singular values of the Jacobian product."""

from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bptt.figures.style import COLOURS, STYLE, log_scale


def spectrum(values: Mapping[str, Tensor], *, title: str = "") -> Figure:
    """Singular values of ∂h_T/∂h_t against the lag T − t.

    values: for every layer by name, singular values (T, H), or a norm (T, 1).
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * len(values), 3.4), dpi=100)
        for axis, (name, each) in zip(figure.subplots(1, len(values), squeeze=False).flat, values.items()):
            shown = each.flip(0).cpu()
            axis.plot(shown[:, 1:], color=COLOURS[0], linewidth=0.5, alpha=0.4)
            axis.plot(shown[:, 0], color=COLOURS[1], label="largest" if shown.shape[1] > 1 else "Frobenius norm")
            log_scale(axis, shown)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.axhline(1, color="black", linewidth=0.8)
            axis.set_xlabel("lag T − t, timesteps")
            axis.set_ylabel(f"{'singular values' if shown.shape[1] > 1 else 'norm'} of ∂h$_T$/∂hₜ")
            axis.set_title(name, fontsize=9)
            axis.legend(fontsize=8)
        if title:
            figure.suptitle(title, fontsize=10)
    return figure
