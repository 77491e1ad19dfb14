"""The simple recurrent network of Elman (1990)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bptt.contracts import one_of
from bptt.layers.base import slope_of_tanh
from bptt.layers.full_precision import promoted
from bptt.layers.record import Record, StateGradients
from bptt.layers.reset import Reset
from bptt.layers.stock import Cuts, Deltas, StockLayer, adjoint_buffer
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
        for time, output in enumerate(outputs.unbind()):
            if reset is not None and time in reset.times:
                hidden = reset.begin(time, hidden)
            hidden = activate(output.addmm_(hidden, weight))
        return outputs, ()

    def recursion(
        self, record: Record, seed: Tensor, final: Any, saved: tuple[Tensor, ...], *, keep_deltas: bool
    ) -> tuple[StateGradients, Deltas | None]:
        """λ_t = g_t + W_hhᵀ δ_{t+1}, with δ_t = φ′_t ∘ λ_t the gradient before the nonlinearity."""
        losses, slope, weight, totals = (
            seed.shape[1],
            self.slope(record),
            promoted(self.weight_hh),
            adjoint_buffer(seed, final),
        )
        deltas = slope.repeat(1, losses, 1) if keep_deltas and losses > 1 else slope
        # δ_t overwrites φ′_t in place; with several losses that are not kept, each one needs its own copy
        in_place = keep_deltas or losses == 1
        rows, cuts = totals.flatten(1, 2).unbind(), Cuts(record.reset, totals[:-1])
        for time, delta in reversed(list(enumerate(deltas.unbind()))):
            rows[time].addmm_((delta if in_place else delta.repeat(losses, 1)).mul_(rows[time + 1]), weight)
            if time in cuts.times:
                cuts.after(time)
        states = StateGradients(totals[1:], totals[0], cuts.total)
        deltas = deltas.unflatten(1, (losses if in_place else 1, -1))
        return states, Deltas(deltas, deltas) if keep_deltas else None
