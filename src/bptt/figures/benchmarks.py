"""Ratios of speed with their targets, and costs against sizes."""

from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from bptt.figures.style import COLOURS, STYLE


def benchmark(
    ratios: Mapping[str, tuple[float, float, float, float | None]],
    costs: Mapping[str, tuple[str, Mapping[int, float]]],
) -> Figure:
    """Ratios to a baseline with quartiles and targets; below them, costs against a size.

    ratios: (median, lower quartile, upper quartile, target or None) by title. costs: (unit, value by size) by title.
    Costs with the same unit share axes.
    """
    with matplotlib.rc_context(STYLE):
        units = list(dict.fromkeys(unit for unit, _ in costs.values()))
        figure = Figure(figsize=(10, 1 + 0.22 * len(ratios) + 3.6 * len(units)), dpi=100)
        heights = [1 + 0.22 * len(ratios), *[3.6] * len(units)]
        top, *below = figure.subplots(1 + len(units), 1, squeeze=False, height_ratios=heights).flat
        for place, (ratio, low, high, target) in enumerate(ratios.values()):
            missed = target is not None and ratio > target
            top.plot([low, high], [place, place], color=COLOURS[0], alpha=0.5, linewidth=3)
            top.plot(ratio, place, "o", color=COLOURS[1] if missed else COLOURS[0])
            if target is not None:
                top.plot(target, place, "|", color="black", markersize=10)
        top.set_yticks(range(len(ratios)), list(ratios), fontsize=7)
        top.invert_yaxis()
        top.set_xscale("log")
        top.axvline(1, color="black", linewidth=0.8)
        top.set_xlabel("ratio, with quartiles; | target; other colour: missed")
        for axis, unit in zip(below, units):
            for name, (own, values) in costs.items():
                if own == unit:
                    axis.loglog(list(values), list(values.values()), ".-", label=name)
            axis.set_xlabel("T, H or K")
            axis.set_ylabel(unit)
            axis.legend(fontsize=7)
    return figure
