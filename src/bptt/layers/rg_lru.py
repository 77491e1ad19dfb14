"""The real-gated linear recurrent unit of De et al. (2024)."""

import torch
from torch import Tensor, nn

from bptt.layers.diagonal import SMALLEST, DiagonalLayer, affine, check_radii, in_at_least_float32

C = 8.0  # exponent of a at an open gate; the paper's constant c


class RGLRU(DiagonalLayer):
    """h_t = a_t ∘ h_{t−1} + √(1 − a_t²) ∘ (i_t ∘ u_t) with a_t = a^(c·r_t), a = σ(Λ), c = 8; state h (B, H).

    r_t = σ(W_r x_t + b_r), i_t = σ(W_i x_t + b_i), u_t = W_u x_t + b_u. In the paper u_t = x_t has H numbers, and W_r,
    W_i are block-diagonal; here W_u maps D to H, and the matrices are full.

    Initially a^c is uniform in [min_radius, max_radius].
    """

    recurrent = ("log_odds", "gates.weight", "gates.bias")

    def __init__(self, input_size: int, hidden_size: int, *, min_radius: float = 0.9, max_radius: float = 0.999):
        super().__init__(input_size, hidden_size)
        check_radii(SMALLEST, min_radius=min_radius, max_radius=max_radius)
        log_a = torch.log(min_radius + torch.rand(hidden_size) * (max_radius - min_radius)) / C
        self.log_odds = nn.Parameter(log_a - torch.log(-torch.expm1(log_a)))  # Λ
        self.gates = nn.Linear(input_size, 2 * hidden_size)  # r, then i
        self.input = nn.Linear(input_size, hidden_size)

    def coefficients(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        r, i = torch.sigmoid(affine(inputs, *self.gates.parameters())).chunk(2, -1)
        log_a = C * r * nn.functional.logsigmoid(in_at_least_float32(self.log_odds))
        # The bound keeps the derivative of the root finite at a = 1.
        scale = (-torch.expm1(2 * log_a)).clamp(min=1e-12).sqrt()
        return log_a.exp(), scale * i * affine(inputs, *self.input.parameters())
