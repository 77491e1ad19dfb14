"""The linear recurrent unit of Orvieto et al. (2023)."""

import math

import torch
from torch import Tensor, nn

from bptt.contracts import between, refusal
from bptt.layers.diagonal import SMALLEST, DiagonalLayer, affine, check_radii


class LRU(DiagonalLayer):
    """h_t = Λ h_{t−1} + γ ∘ (B x_t) with H/2 complex numbers Λ = exp(−e^ν + i e^θ) on the diagonal.

    State (B, H) of real numbers: Re and Im of each of the H/2 units side by side. This is the recurrence alone. The
    paper's output map y = Re(C h) + D ∘ x is a real linear map of h: the readout, or the first map of a block
    (`model.block`), which also adds D ∘ x.

    Initially |Λ|² is uniform in [min_radius², max_radius²], the phase e^θ uniform in [0, max_phase], γ = √(1 − |Λ|²),
    so that the variance of h does not depend on |Λ| for white inputs. Real and imaginary part of B are N(0, 1/(2D)).
    ν, θ, log γ and B are trained.

    hidden_size: H, even. ValueError otherwise.
    """

    complex_units = True
    recurrent = ("log_nu", "log_theta")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        min_radius: float = 0.9,
        max_radius: float = 0.999,
        max_phase: float = 2 * math.pi,
    ):
        super().__init__(input_size, hidden_size)
        if hidden_size % 2:
            raise ValueError(refusal("hidden_size", "even, with a real and an imaginary part a unit", hidden_size))
        check_radii(0, min_radius=min_radius, max_radius=max_radius)
        between(SMALLEST, 2 * math.pi, open_high=False, max_phase=max_phase)
        uniform = 1 - torch.rand(2, hidden_size // 2)  # in (0, 1]
        squared_radius = min_radius**2 + uniform[0] * (max_radius**2 - min_radius**2)
        self.log_nu = nn.Parameter((-0.5 * squared_radius.log()).log())
        self.log_theta = nn.Parameter((max_phase * uniform[1]).log())
        self.log_gamma = nn.Parameter(0.5 * torch.log1p(-squared_radius))
        self.weight = nn.Parameter(torch.randn(hidden_size, input_size) / math.sqrt(2 * input_size))

    def coefficients(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        # In double precision, since Λ^t multiplies the relative error of Λ by t.
        radius, phase = torch.exp(-self.log_nu.double().exp()), self.log_theta.double().exp()
        a = torch.stack([radius * phase.cos(), radius * phase.sin()], -1).flatten()
        scaled = self.weight * self.log_gamma.exp().repeat_interleave(2).unsqueeze(1)
        return a, affine(inputs, scaled)
