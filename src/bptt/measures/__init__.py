"""Measures of the gradient through time: pure functions that need torch alone."""

from bptt.estimators.decay import decay_rate
from bptt.measures.eigenvalues import eigenvalues, memory_length
from bptt.measures.flossing import flossing
from bptt.measures.gradient_flow import LayerFlow, by_timestep_and_lag, exact_flows
from bptt.measures.horizon import Band, Horizon, band, horizon
from bptt.measures.jacobian import frobenius_norms, jacobian_products, lyapunov_exponents, singular_values
from bptt.measures.manual import manual_gradients
from bptt.measures.parameters import gradient_norms, weight_norms
from bptt.measures.passes import Pass, PassRecorder
from bptt.measures.per_sequence import per_sequence_gradients
from bptt.measures.regularisation import omega
from bptt.measures.segments import last_timesteps_with_loss
from bptt.measures.truncation_bias import Bias, bias, chunk_sizes, estimated_gradient, truncation_bias

__all__ = [
    "Band",
    "Bias",
    "Horizon",
    "LayerFlow",
    "Pass",
    "PassRecorder",
    "band",
    "bias",
    "by_timestep_and_lag",
    "chunk_sizes",
    "decay_rate",
    "eigenvalues",
    "estimated_gradient",
    "exact_flows",
    "flossing",
    "frobenius_norms",
    "gradient_norms",
    "horizon",
    "jacobian_products",
    "last_timesteps_with_loss",
    "lyapunov_exponents",
    "manual_gradients",
    "memory_length",
    "omega",
    "per_sequence_gradients",
    "singular_values",
    "truncation_bias",
    "weight_norms",
]
