"""A linear network in which short and long lags contribute gradients of opposite sign."""

import torch
from torch import Tensor, nn

from bptt.contracts import refusal
from bptt.layers.base import Layer
from bptt.layers.full_precision import promoted
from bptt.layers.record import Record
from bptt.shapes import Hidden, Input, Outputs

UNITS = 23
POSITIVE = 10  # units driven by +θ; the others by −θ


class Influence(Layer):
    """s_t = A s_{t-1} + θ · (1, …, 1, −1, …, −1), with one parameter θ (Tallec & Ollivier 2017).

    A_ii = A_i,i+1 = ½: every unit passes half of its value to the unit before it. The influence of θ on the first unit
    is positive over short lags, and sums to −6 over all lags. State (B, 23), initially 1. Inputs are ignored.
    """

    matrix: Tensor
    signs: Tensor

    def __init__(self, input_size: int, hidden_size: int, *, theta: float = 0.5):
        super().__init__(input_size, hidden_size)
        if hidden_size != UNITS:
            raise ValueError(refusal("hidden_size", f"{UNITS} for influence balancing", hidden_size))
        self.theta = nn.Parameter(torch.tensor(theta))
        self.register_buffer("matrix", 0.5 * (torch.eye(UNITS) + torch.diag(torch.ones(UNITS - 1), 1)))
        self.register_buffer("signs", torch.where(torch.arange(UNITS) < POSITIVE, 1.0, -1.0))

    def initial_state(self, batch_size: int) -> Hidden:
        return torch.ones(batch_size, UNITS, dtype=self.theta.dtype, device=self.theta.device)

    def slope(self, record: Record) -> Outputs:
        """1, since the recurrence is linear."""
        return torch.ones_like(promoted(record.outputs))

    def step(self, input: Input, state: Hidden) -> Hidden:
        return state @ self.matrix.to(state.dtype).T + self.theta * self.signs.to(state.dtype)
