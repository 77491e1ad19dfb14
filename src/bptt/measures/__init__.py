"""What the gradient does on its way back: pure functions, on torch alone."""

from bptt.measures.gradient_flow import Band, LayerFlow, band, by_timestep_and_lag, decay_rate, exact_flows, horizon
from bptt.measures.jacobian import frobenius_norms, jacobian_products, lyapunov_exponents, singular_values
from bptt.measures.manual import manual_gradients
from bptt.measures.parameters import gradient_norms, weight_norms
from bptt.measures.regularisation import omega
from bptt.measures.stretch import passed_over, up_to_last_loss
from bptt.measures.truncation_bias import Bias, bias, chunk_sizes, estimated_gradient, truncation_bias
from bptt.measures.watch import Pass, Watch

__all__ = [
    "Band",
    "Bias",
    "LayerFlow",
    "Pass",
    "Watch",
    "band",
    "bias",
    "by_timestep_and_lag",
    "chunk_sizes",
    "decay_rate",
    "estimated_gradient",
    "exact_flows",
    "frobenius_norms",
    "gradient_norms",
    "horizon",
    "jacobian_products",
    "lyapunov_exponents",
    "manual_gradients",
    "omega",
    "passed_over",
    "singular_values",
    "truncation_bias",
    "up_to_last_loss",
    "weight_norms",
]
