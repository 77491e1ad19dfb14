"""The long short-term memory of Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bptt.layers.full_precision import promoted
from bptt.layers.record import Record, StateGradients, previous_hidden
from bptt.layers.reset import Reset, select_rows
from bptt.layers.stock import (
    Cuts,
    Deltas,
    StockLayer,
    adjoint_buffer,
    delta_buffer,
    timesteps,
)
from bptt.shapes import Features, Input, Outputs, State, leaves, map_state

# On a CPU without bfloat16 instructions oneDNN's LSTM raises under autocast; there it runs in the weights' precision.
AUTOCAST_KERNEL: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()


SATURATED = 1e4  # σ(±SATURATED) is 0 or 1, and its derivative 0, in every precision


class LSTMState(NamedTuple):
    """Output h and memory cell c, each (B, H); (T, B, H) for all timesteps."""

    h: Tensor
    c: Tensor


class LSTM(StockLayer):
    """c_t = f ∘ c_{t-1} + i ∘ g,  h_t = o ∘ tanh(c_t); state (h, c), each (B, H).

    i, f, o = σ(W x + b + W' h_{t-1} + b') and g = tanh(W x + b + W' h_{t-1} + b'), each with its own block of rows.
    """

    gates = ("i", "f", "g", "o")

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(nn.LSTM, input_size, hidden_size)

    def forward(self, inputs: Features, state: State) -> tuple[Outputs, State]:
        if inputs.is_cpu and torch.is_autocast_enabled("cpu") and not AUTOCAST_KERNEL:
            kind = self.weight_hh.dtype
            with torch.autocast("cpu", enabled=False):
                return super().forward(inputs.to(kind), map_state(lambda leaf: leaf.to(kind), state))
        return super().forward(inputs, state)

    def forward_with_resets(self, inputs: Features, state: State, reset: Reset) -> tuple[Outputs, State]:
        """One pass of the kernel, in which a timestep that sets h and c to 0 is inserted before every reset.

        Two more input features saturate the gates: the first at the inserted timesteps, i = f = o = 0; the second after
        the last timestep of sequences with fewer resets than others, i = 0 and f = 1, so that c stays. There σ' = 0, so
        no gradient crosses a reset. On a GPU, in half precision, and for sequences that do not begin with zeros, there
        is one pass from reset to reset.
        """
        whole = inputs.is_cpu and self._in_full_precision(inputs)
        if not whole or any(leaf.requires_grad or leaf.any() for leaf in leaves(reset.state)):
            return super().forward_with_resets(inputs, state, reset)
        own = reset.mask.cumsum(0) + torch.arange(len(inputs)).unsqueeze(1)  # places of the timesteps, (T, B)
        rows = (own * inputs.shape[1] + torch.arange(inputs.shape[1])).flatten()  # with (T, B) flattened
        longer = inputs.new_zeros(1 + int(own[-1].max()), inputs.shape[1], self.input_size + 2)
        after_last = torch.arange(len(longer)).unsqueeze(1) > own[-1]
        longer[..., -2], longer[..., -1] = ~after_last, after_last
        padded = nn.functional.pad(inputs, (0, 2))
        longer = longer.flatten(0, 1).index_copy(0, rows, padded.flatten(0, 1)).view_as(longer)
        i_f_g_o = self.weight_ih.new_tensor(
            [[-SATURATED, -SATURATED], [-SATURATED, SATURATED], [0, 0], [-SATURATED, 0]]
        )
        weight_ih = torch.cat([self.weight_ih, i_f_g_o.repeat_interleave(self.hidden_size, 0)], 1)
        weights = [weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        before = [leaf.contiguous().unsqueeze(0) for leaf in leaves(state)]
        outputs, _, c = torch.lstm(longer, before, weights, True, 1, 0.0, self.training, False, False)
        outputs = outputs.flatten(0, 1).index_select(0, rows).view(*own.shape, -1)
        return outputs, LSTMState(outputs[-1], c.squeeze(0))

    def initial_state(self, batch_size: int) -> LSTMState:
        zeros = self.weight_hh.new_zeros(batch_size, self.hidden_size)
        return LSTMState(zeros, zeros)

    def step(self, input: Input, state: LSTMState) -> LSTMState:
        i, f, g, o = self._gates(input, state.h)
        c = f * state.c + i * g
        return LSTMState(o * torch.tanh(c), c)

    def recursion(
        self, record: Record, seed: Tensor, final: Any, saved: tuple[Tensor, ...], *, keep_deltas: bool
    ) -> tuple[StateGradients, Deltas | None]:
        """The adjoints λ_t = dL/dh_t and μ_t = dL/dc_t.

        μ_t = f_{t+1} ∘ μ_{t+1} + o (1 − tanh² c) ∘ λ_t,  λ_{t-1} = g_{t-1} + W_hhᵀ δ_t. Each block of δ_t is λ or μ
        times a factor that is known beforehand: δ_i = μ g i (1 − i),  δ_f = μ c_{t-1} f (1 − f),  δ_g = μ i (1 − g²),
        δ_o = λ tanh(c) o (1 − o).
        """
        i, f, g, o = self._gates(record.inputs, previous_hidden(record))
        written = i * g
        cells, reset = torch.cat([record.initial.c.unsqueeze(0), torch.empty_like(written)]), record.reset
        for time, (write, forget, before, cell) in enumerate(timesteps(written, f, cells[:-1], cells[1:])):
            if reset is not None and time in reset.times:
                before = select_rows(reset.mask[time], reset.state.c, before)
            torch.addcmul(write, forget, before, out=cell)
        before, squashed = cells[:-1], torch.tanh(cells[1:])
        if reset is not None:
            reset.begin_all_(before, reset.state.c)
        factors = torch.stack(
            [written * (1 - i), before * f * (1 - f), i * (1 - g.square()), squashed * o * (1 - o)], dim=2
        )
        into_cell = o * (1 - squashed.square())

        f, into_cell, factors = (each.unsqueeze(1) for each in (f, into_cell, factors))
        weight, totals = promoted(self.weight_hh), adjoint_buffer(seed, final.h)
        deltas = delta_buffer(factors, seed, keep_deltas=keep_deltas)
        mus, from_later, joined = torch.empty_like(seed), final.c.clone(), deltas.flatten(-2)
        parts = (part for blocks in (factors, deltas) for part in (blocks[..., :3, :], blocks[..., 3, :]))
        sequences = totals[1:], mus, into_cell, f, *parts, joined.flatten(1, 2), totals[:-1].flatten(1, 2)
        cuts, at_resets = Cuts(reset, totals[:-1]), torch.zeros_like(from_later)
        for time, (total, mu, into, forget, by_mu, by_total, of_mu, of_total, delta, earlier) in zip(
            reversed(range(len(seed))), timesteps(*sequences, reverse=True)
        ):
            torch.addcmul(from_later, into, total, out=mu)
            torch.mul(forget, mu, out=from_later)
            torch.mul(by_mu, mu.unsqueeze(-2), out=of_mu)
            torch.mul(by_total, total, out=of_total)
            earlier.addmm_(delta, weight)
            if reset is not None and time in cuts.times:
                cuts.after(time)
                chosen = reset.mask[time].unsqueeze(-1)
                at_resets += torch.where(chosen, from_later, 0)
                from_later.masked_fill_(chosen, 0)
        began = None if cuts.total is None else LSTMState(cuts.total, at_resets)
        states = StateGradients(LSTMState(totals[1:], mus), LSTMState(totals[0], from_later), began)
        return states, Deltas(joined, joined) if keep_deltas else None

    def _gates(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """i, f, g, o."""
        i, f, g, o = self.preactivation(inputs, hidden).chunk(4, -1)
        return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)

    def _state(self, final: State) -> LSTMState:
        return LSTMState(*final)
