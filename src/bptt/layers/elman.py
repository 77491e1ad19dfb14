"""The simple recurrent network of Elman (1990)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bptt.contracts import one_of
from bptt.layers.base import slope_of_tanh
from bptt.layers.full_precision import promoted
from bptt.layers.record import Record, StateGradients
from bptt.layers.reset import Reset
from bptt.layers.stock import Cuts, Deltas, StockLayer, adjoint_buffer, delta_buffer, timesteps
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
        return activation(self.preactivation(input, state))

    def step_within_units(self, input: Input, state: Hidden) -> Hidden:
        """`step`: every path from h_{t−1} passes through W_hh."""
        return self.step(input, state.detach())

    def slope(self, record: Record) -> Outputs:
        """φ′ at every timestep: 1 − h² for tanh; 1 or 0 for relu."""
        outputs = promoted(record.outputs)
        return slope_of_tanh(outputs) if self.nonlinearity == "tanh" else (outputs > 0).to(outputs.dtype)

    def loop(self, inputs: Features, initial: Hidden, reset: Reset | None) -> tuple[Outputs, tuple[Tensor, ...]]:
        """All timesteps in place. The recursion needs nothing but the outputs."""
        activate = torch.tanh_ if self.nonlinearity == "tanh" else torch.relu_
        outputs, weight, hidden = (
            nn.functional.linear(inputs, self.weight_ih, self.bias_ih + self.bias_hh),
            self.weight_hh.T,
            initial,
        )
        for time, (output,) in enumerate(timesteps(outputs)):
            if reset is not None and time in reset.times:
                hidden = reset.begin(time, hidden)
            hidden = activate(output.addmm_(hidden, weight))
        return outputs, ()

    def recursion(
        self, record: Record, seed: Tensor, final: Any, saved: tuple[Tensor, ...], *, keep_deltas: bool
    ) -> tuple[StateGradients, Deltas | None]:
        """λ_t = g_t + W_hhᵀ δ_{t+1}, with δ_t = φ′_t ∘ λ_t the gradient before the nonlinearity."""
        slope, weight, totals = self.slope(record).unsqueeze(1), promoted(self.weight_hh), adjoint_buffer(seed, final)
        deltas = delta_buffer(slope, seed, keep_deltas=keep_deltas)
        sequences = (slope, deltas, totals[1:], deltas.flatten(1, 2), totals[:-1].flatten(1, 2))
        cuts = Cuts(record.reset, totals[:-1])
        for time, (factor, each, total, delta, earlier) in zip(
            reversed(range(len(seed))), timesteps(*sequences, reverse=True)
        ):
            torch.mul(factor, total, out=each)
            earlier.addmm_(delta, weight)
            if time in cuts.times:
                cuts.after(time)
        states = StateGradients(totals[1:], totals[0], cuts.total)
        return states, Deltas(deltas, deltas) if keep_deltas else None
