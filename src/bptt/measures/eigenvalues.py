"""Eigenvalues of diagonal recurrences h_t = a_t ∘ h_{t−1} + b_t: the factors a_t themselves."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from bptt.layers.diagonal import DiagonalLayer
from bptt.layers.full_precision import full_precision_no_grad, in_full_precision, promoted
from bptt.layers.record import Record


def eigenvalues(layer: DiagonalLayer, record: Record, *, sequence: int = 0) -> Complex[Tensor, "N U"]:
    """a_t of every unit along one sequence of a record, N = T; N = 1 if a is constant in time."""
    with full_precision_no_grad(record.outputs):
        a, _ = in_full_precision(layer).coefficients(promoted(record.inputs[:, sequence : sequence + 1]))
    a = (a if a.dim() == 1 else a.squeeze(1)).detach().double().reshape(-1, record.outputs.shape[-1])
    if layer.complex_units:
        return torch.view_as_complex(a.unflatten(-1, (-1, 2)).contiguous())
    return torch.complex(a, torch.zeros_like(a))


def memory_length(modulus: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """1/(1 − |a|) in timesteps: the sum of 1, |a|, |a|², …; infinite at |a| = 1."""
    return 1 / (1 - modulus)


def exponents(values: Complex[Tensor, "N U"]) -> Float[Tensor, " U"]:
    """Lyapunov exponent of each unit, the mean of log |a_t| in nats per timestep; −∞ if some a_t is 0."""
    return values.abs().log().mean(0)
