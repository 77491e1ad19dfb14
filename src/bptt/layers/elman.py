"""The simple recurrent network of Elman (1990)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bptt.contracts import one_of
from bptt.layers.base import Record, StateGradients, StockLayer, for_each_loss, promoted
from bptt.shapes import Features, Hidden, Input, Outputs


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

    def loop(self, inputs: Features, initial: Hidden) -> tuple[Outputs, tuple[Tensor, ...]]:
        """In place; the outputs are all that the recursion needs."""
        activate = torch.tanh_ if self.nonlinearity == "tanh" else torch.relu_
        outputs, weight, hidden = (
            nn.functional.linear(inputs, self.weight_ih, self.bias_ih + self.bias_hh),
            self.weight_hh.T,
            initial,
        )
        for output in outputs.unbind():
            hidden = activate(output.addmm_(hidden, weight))
        return outputs, ()

    def recursion(
        self, record: Record, seed: Outputs, final: Any, known: tuple[Tensor, ...] = ()
    ) -> tuple[StateGradients, Tensor, Tensor]:
        """λ_t = g_t + W_hhᵀ δ_{t+1}, with δ_t = φ′_t ∘ λ_t the gradient before the nonlinearity."""
        weight, slope = promoted(self.weight_hh), for_each_loss(self.slope(record), seed)
        zeros = torch.zeros_like(seed[0])
        states, deltas = torch.empty_like(seed), slope  # factors, to begin with
        total = torch.add(seed[-1], zeros if final is None else final, out=states[-1])
        for t in reversed(range(len(seed))):
            earlier, direct = (states[t - 1], seed[t - 1]) if t else (torch.empty_like(zeros), zeros)
            total = torch.addmm(direct, deltas[t].mul_(total), weight, out=earlier)
        return StateGradients(states, total), deltas, deltas
