"""The long short-term memory of Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bptt.layers.base import Record, StateGradients, StockLayer, for_each_loss, previous_hidden, promoted
from bptt.shapes import Input, Outputs, State


class LSTMState(NamedTuple):
    """Output h and memory cell c; each (B, H), or (T, B, H) for a whole sequence."""

    h: Tensor
    c: Tensor


class LSTM(StockLayer):
    """c_t = f ∘ c_{t-1} + i ∘ g,  h_t = o ∘ tanh(c_t); state (h, c), each (B, H).

    i, f, o = σ(W x + b + W' h_{t-1} + b') with their own blocks of rows, g = tanh(…) likewise.
    """

    gates = ("i", "f", "g", "o")

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(nn.LSTM, input_size, hidden_size)

    def initial_state(self, batch_size: int) -> LSTMState:
        zeros = self.weight_hh.new_zeros(batch_size, self.hidden_size)
        return LSTMState(zeros, zeros)

    def step(self, input: Input, state: LSTMState) -> LSTMState:
        i, f, g, o = self._gates(input, state.h)
        c = f * state.c + i * g
        return LSTMState(o * torch.tanh(c), c)

    def recursion(
        self, record: Record, seed: Outputs, final: Any, known: tuple[Tensor, ...] = ()
    ) -> tuple[StateGradients, Tensor, Tensor]:
        """Two adjoints, λ = dL/dh_t and μ = dL/dc_t.

        μ_t = f_{t+1} ∘ μ_{t+1} + o (1 − tanh² c) ∘ λ_t and λ_{t-1} = g_{t-1} + W_hhᵀ δ_t, where each block of δ_t is a
        known factor times λ or μ: δ_i = μ g i (1 − i),  δ_f = μ c_{t-1} f (1 − f),  δ_g = μ i (1 − g²),
        δ_o = λ tanh(c) o (1 − o).
        """
        i, f, g, o = self._gates(record.inputs, previous_hidden(record))
        written = i * g
        cells = [record.initial.c]
        for forget, write in zip(f.unbind(), written.unbind()):
            cells.append(torch.addcmul(write, forget, cells[-1]))
        before, squashed = torch.stack(cells[:-1]), torch.tanh(torch.stack(cells[1:]))
        cell_factors = torch.stack([written * (1 - i), before * f * (1 - f), i * (1 - g.square())], dim=2)
        output_factor = squashed * o * (1 - o)
        into_cell = o * (1 - squashed.square())

        into_cell, output_factor, f, cell_factors = (
            for_each_loss(values, seed) for values in (into_cell, output_factor, f, cell_factors)
        )
        weight, zeros = promoted(self.weight_hh), torch.zeros_like(seed[0])
        deltas = cell_factors.new_empty(len(seed), len(zeros), 4, self.hidden_size)
        lambdas, mus = [], []
        arriving = LSTMState(zeros, zeros) if final is None else final
        total, cell = seed[-1] + arriving.h, arriving.c
        for t in reversed(range(len(seed))):
            lambdas.append(total)
            mus.append(torch.addcmul(cell, into_cell[t], total))
            torch.mul(cell_factors[t], mus[-1].unsqueeze(1), out=deltas[t, :, :3])
            torch.mul(output_factor[t], total, out=deltas[t, :, 3])
            total = torch.addmm(seed[t - 1] if t else zeros, deltas[t].flatten(1), weight)
            cell = f[t] * mus[-1]
        states = LSTMState(torch.stack(lambdas[::-1]), torch.stack(mus[::-1]))
        return StateGradients(states, LSTMState(total, cell)), deltas.flatten(2), deltas.flatten(2)

    def _gates(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        i, f, g, o = torch.add(*self.preactivations(inputs, hidden)).chunk(4, -1)
        return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)

    def _state(self, final: State) -> LSTMState:
        return LSTMState(*final)
