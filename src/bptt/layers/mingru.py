"""The minimal gated recurrent unit of Feng et al. (2024)."""

from typing import Literal

import torch
from torch import Tensor, nn

from bptt.contracts import one_of
from bptt.layers.diagonal import DiagonalLayer, affine

Candidate = Literal["linear", "positive"]


class MinGRU(DiagonalLayer):
    """h_t = (1 − z_t) ∘ h_{t−1} + z_t ∘ h̃_t with z_t = σ(W_z x_t + b_z), h̃_t = W_h x_t + b_h; state h (B, H).

    The gate does not see the state, so the recurrence is linear in h.

    candidate: `linear`, or `positive` for h̃_t = g(W_h x_t + b_h) as in the authors' computation with logarithms, where
        g(v) = v + ½ for v ≥ 0 and σ(v) below. The scan here needs no logarithms.
    """

    recurrent = ("gate.weight", "gate.bias")

    def __init__(self, input_size: int, hidden_size: int, *, candidate: Candidate = "linear"):
        one_of(("linear", "positive"), candidate=candidate)
        super().__init__(input_size, hidden_size)
        self.gate = nn.Linear(input_size, hidden_size)
        self.candidate = nn.Linear(input_size, hidden_size)
        self.positive = candidate == "positive"

    def coefficients(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        gate = affine(inputs, *self.gate.parameters())
        candidate = bounded_below(affine(inputs, *self.candidate.parameters()), positive=self.positive)
        return torch.sigmoid(-gate), torch.sigmoid(gate) * candidate


def bounded_below(values: Tensor, *, positive: bool) -> Tensor:
    """g(v) if the candidate must be positive, else v."""
    return torch.where(values >= 0, values + 0.5, torch.sigmoid(values)) if positive else values
