"""Descriptions of TensorBoard's tags, shown as tooltips."""

import re
from functools import lru_cache

DESCRIPTIONS = {
    r"gradient_flow/layer\d+/lag_\d+": "Mean ‖∂L_s/∂h_{s−k}‖ of one loss at timestep s; the lag k is in the tag.",
    r"gradient_flow/layer\d+/horizon": (
        "Largest lag, in timesteps, at which half of the samples still have ε (1 % by default) of their largest "
        "gradient. A horizon at the chunk's end means that the chunk limits it."
    ),
    r"gradient_flow/layer\d+/decay_rate": "Factor of the gradient per lag: below 1 it vanishes, above 1 it explodes.",
    r"gradient_flow/layer\d+/transport": (
        "Share of the gradient at a timestep that came through the recurrence: ‖λ_t − g_t‖ / ‖λ_t‖."
    ),
    r"gradient_flow/layer\d+/saturation": (
        "Elman: mean slope of the activation, 1 is linear, 0 is saturated. GRU, LSTM and own cells: mean of 1 − h², "
        "which does not show the gates. Linear recurrences: 1."
    ),
    r"gradient_flow/layer\d+": "log₁₀ ‖dL/dh_t‖ over the timesteps and sequences of one update.",
    r"gradient_flow/figure/by_lag": (
        "Gradient of single losses against the lag, median and 5th to 95th percentile. Dotted: horizon. Dashed: the "
        "gradient is cut there, or the sequence begins."
    ),
    r"gradient_flow/figure/by_timestep": (
        "Gradient of the whole loss at every timestep of one update, per sequence. Dashed: chunk borders."
    ),
    r"gradient_flow/figure/over_training/.*": "Gradient at every timestep of an update (upwards) over training.",
    r"jacobian/layer\d+/lyapunov": (
        "Largest Lyapunov exponent of the recurrence, nats per timestep: above 0 gradients explode, below they vanish."
    ),
    r"jacobian/layer\d+/norm": "Norm of the Jacobian product ∂h_T/∂h_{T−lag}.",
    r"jacobian/figure/.*": "Singular values of the Jacobian product ∂h_T/∂h_t against the lag T − t.",
    r"jacobian/layer\d+/modulus_\d+": "Quantile, in %, of |a| over the units of h_t = a_t ∘ h_{t−1} + b_t.",
    r"jacobian/layer\d+/memory_\d+": "1/(1 − |a|) in timesteps, at a quantile of |a| over units.",
    r"jacobian/eigenvalues": "Eigenvalues of diagonal recurrences in the complex plane, with the unit circle.",
    r"truncation_bias/cosine": "Cosine of the gradient of estimator=chunked, at the size in use, with the exact one.",
    r"truncation_bias/relative": "‖ĝ − g‖ / ‖g‖ of estimator=chunked, at the chunk size in use.",
    r"truncation_bias/norm_ratio": "‖ĝ‖ / ‖g‖ of estimator=chunked, at the chunk size in use.",
    r"truncation_bias/figure/.*": (
        "Gradient of estimator=chunked against the exact one, by chunk size, whichever estimator trains. Later looks "
        "are darker."
    ),
    r"confusion/figure": "Classes that the last validation confused: counts, coloured by the share of the true class.",
    r"parameters/gradient_norm/.*": "L2 norm of the gradient before clipping, of one part of the model or of all.",
    r"parameters/weight_norm": "L2 norm of all weights.",
    r"progress/updates": "Optimizer steps.",
    r"progress/batches": "Batches.",
    r"progress/timesteps": "Timesteps times sequences, summed over processes.",
    r"best/.*": "Best value of the monitored metric so far, at each validation.",
    r"cost/wall_seconds": "Seconds that the run has taken, without interruptions, at each validation.",
}


@lru_cache(maxsize=1024)
def description(tag: str) -> str:
    """A sentence about a tag, or nothing."""
    return next((text for pattern, text in DESCRIPTIONS.items() if re.fullmatch(pattern, tag)), "")
