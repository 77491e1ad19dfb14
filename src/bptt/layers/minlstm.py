"""The minimal long short-term memory of Feng et al. (2024)."""

import torch
from torch import Tensor, nn

from bptt.contracts import one_of
from bptt.layers.diagonal import DiagonalLayer, affine
from bptt.layers.mingru import Candidate, bounded_below


class MinLSTM(DiagonalLayer):
    """h_t = f′_t ∘ h_{t−1} + i′_t ∘ h̃_t with f′ = f / (f + i), i′ = i / (f + i); state h (B, H).

    f = σ(W_f x_t + b_f), i = σ(W_i x_t + b_i), h̃ = W_h x_t + b_h. The gates do not see the state, so the recurrence is
    linear in h.

    candidate: `linear` or `positive`, as in `MinGRU`.
    """

    recurrent = ("gates.weight", "gates.bias")

    def __init__(self, input_size: int, hidden_size: int, *, candidate: Candidate = "linear"):
        one_of(("linear", "positive"), candidate=candidate)
        super().__init__(input_size, hidden_size)
        self.gates = nn.Linear(input_size, 2 * hidden_size)  # f, then i
        self.candidate = nn.Linear(input_size, hidden_size)
        self.positive = candidate == "positive"

    def coefficients(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        f, i = affine(inputs, *self.gates.parameters()).chunk(2, -1)
        # f / (f + i) = σ(log f − log i), which is finite if both gates are closed.
        odds = nn.functional.logsigmoid(f) - nn.functional.logsigmoid(i)
        candidate = bounded_below(affine(inputs, *self.candidate.parameters()), positive=self.positive)
        return torch.sigmoid(odds), torch.sigmoid(-odds) * candidate
