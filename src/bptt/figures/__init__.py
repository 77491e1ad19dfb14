"""Matplotlib figures of measures, one file per subject."""

from bptt.figures.benchmarks import benchmark
from bptt.figures.chunk_size import chunk_size_costs
from bptt.figures.comparison import Curve, Panel, panels
from bptt.figures.eigenvalues import ring
from bptt.figures.gradient import gradient_flow
from bptt.figures.jacobian import spectrum
from bptt.figures.predictions import predictions
from bptt.figures.style import pixels, save
from bptt.figures.truncation import truncation_bias

__all__ = [
    "Curve",
    "Panel",
    "benchmark",
    "chunk_size_costs",
    "gradient_flow",
    "panels",
    "pixels",
    "predictions",
    "ring",
    "save",
    "spectrum",
    "truncation_bias",
]
