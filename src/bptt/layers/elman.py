"""The simple recurrent network of Elman (1990)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bptt.contracts import one_of
from bptt.layers.base import Record, StateGradients, StockLayer, for_each_loss, promoted
from bptt.shapes import Hidden, Input, Outputs


class Elman(StockLayer):
    """h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), with φ tanh or relu; state h (B, H)."""

    gates = ("h",)

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: Literal["tanh", "relu"] = "tanh"):
        one_of(("tanh", "relu"), nonlinearity=nonlinearity)
        super().__init__(nn.RNN, input_size, hidden_size, nonlinearity=nonlinearity)
        self.nonlinearity = nonlinearity

    def step(self, input: Input, state: Hidden) -> Hidden:
        activation = torch.tanh if self.nonlinearity == "tanh" else torch.relu
        return activation(torch.add(*self.preactivations(input, state)))

    def slope(self, record: Record) -> Outputs:
        """φ′ at every timestep: 1 − h² for tanh, 1 or 0 for relu."""
        outputs = promoted(record.outputs)
        return 1 - outputs.square() if self.nonlinearity == "tanh" else (outputs > 0).to(outputs.dtype)

    def recursion(self, record: Record, seed: Outputs, final: Any) -> tuple[StateGradients, Tensor, Tensor]:
        """λ_t = g_t + W_hhᵀ δ_{t+1}, with δ_t = φ′_t ∘ λ_t the gradient before the nonlinearity."""
        weight, slope = promoted(self.weight_hh), for_each_loss(self.slope(record), seed)
        zeros = torch.zeros_like(seed[0])
        totals = []
        total = seed[-1] + (zeros if final is None else final)
        for t in reversed(range(len(seed))):
            totals.append(total)
            total = torch.addmm(seed[t - 1] if t else zeros, slope[t] * total, weight)
        states = torch.stack(totals[::-1])
        delta = slope * states
        return StateGradients(states, total), delta, delta
