"""Matplotlib figures of measures, one file per subject."""

from bptt.figures.benchmarks import benchmark
from bptt.figures.chunk_size import chunk_size_costs
from bptt.figures.comparison import Curve, Panel, panels
from bptt.figures.confusion import confusion_matrix
from bptt.figures.eigenvalues import ring
from bptt.figures.estimators import learnt_lags
from bptt.figures.gradient import gradient_by_lag, gradient_by_timestep, gradient_flow, gradient_over_training
from bptt.figures.jacobian import singular_values, spectrum
from bptt.figures.predictions import predictions
from bptt.figures.style import pixels, save
from bptt.figures.truncation import bias_by_chunk_size, truncation_bias

__all__ = [
    "Curve",
    "Panel",
    "benchmark",
    "bias_by_chunk_size",
    "chunk_size_costs",
    "confusion_matrix",
    "gradient_by_lag",
    "gradient_by_timestep",
    "gradient_flow",
    "gradient_over_training",
    "learnt_lags",
    "panels",
    "pixels",
    "predictions",
    "ring",
    "save",
    "singular_values",
    "spectrum",
    "truncation_bias",
]
