"""The gated recurrent unit of Cho et al. (2014), in torch's parametrisation."""

from typing import Any

import torch
from torch import Tensor, nn

from bptt.layers.full_precision import promoted
from bptt.layers.record import Record, StateGradients, previous_hidden
from bptt.layers.reset import Reset
from bptt.layers.stock import (
    Cuts,
    Deltas,
    StockLayer,
    adjoint_buffer,
    delta_buffer,
    timesteps,
)
from bptt.shapes import Features, Hidden, Input, Outputs


class GRU(StockLayer):
    """h_t = (1 − z) ∘ n + z ∘ h_{t-1}; state h (B, H).

    r = σ(W_ir x + b_ir + W_hr h + b_hr),  z = σ(W_iz x + b_iz + W_hz h + b_hz),
    n = tanh(W_in x + b_in + r ∘ (W_hn h + b_hn)). Unlike in the paper, the reset gate acts after the recurrent product.
    """

    gates = ("r", "z", "n")

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(nn.GRU, input_size, hidden_size)

    def step(self, input: Input, state: Hidden) -> Hidden:
        _, z, n, _ = self._gates(input, state)
        return (1 - z) * n + z * state

    def step_within_units(self, input: Input, state: Hidden) -> Hidden:
        """`step` with the leak z ∘ h_{t−1}, and gates that see h_{t−1} as a constant."""
        _, z, n, _ = self._gates(input, state.detach())
        return (1 - z) * n + z * state

    def loop(self, inputs: Features, initial: Hidden, reset: Reset | None) -> tuple[Outputs, tuple[Tensor, ...]]:
        """All timesteps in place if possible. Saves the gates r, z, n and the recurrent product u."""
        size, weight, hidden = self.hidden_size, self.weight_hh.T, initial
        gates = nn.functional.linear(inputs, self.weight_ih, self.bias_ih)
        products, outputs = torch.empty_like(gates), gates.new_empty(*gates.shape[:2], size)
        for time, (gate, product, output) in enumerate(timesteps(gates, products, outputs)):
            if reset is not None and time in reset.times:
                hidden = reset.begin(time, hidden)
            torch.addmm(self.bias_hh, hidden, weight, out=product)
            gate[:, : 2 * size].add_(product[:, : 2 * size]).sigmoid_()
            r, z, n = gate.split(size, 1)
            n.addcmul_(r, product[:, 2 * size :]).tanh_()
            hidden = torch.lerp(n, hidden, z, out=output)
        return outputs, (*gates.split(size, -1), products[..., 2 * size :])

    def recursion(
        self, record: Record, seed: Tensor, final: Any, saved: tuple[Tensor, ...], *, keep_deltas: bool
    ) -> tuple[StateGradients, Deltas | None]:
        """λ_{t-1} = g_{t-1} + z_t ∘ λ_t + W_hhᵀ δ_t. z ∘ λ is the direct path, W_hhᵀ δ the one through the gates.

        With u = W_hn h_{t-1} + b_hn, each block of δ_t is λ_t times a factor that is known beforehand:
        δ_n = (1 − z)(1 − n²),  δ_z = (h_{t-1} − n) z (1 − z),  δ_r = δ_n u r (1 − r), and δ_u = r δ_n.
        """
        before = previous_hidden(record)
        r, z, n, u = saved or self._gates(record.inputs, before)
        factor_n = (1 - n.square()).mul_(1 - z)
        factors = torch.stack(
            [(factor_n * u).mul_(r).mul_(1 - r), (before - n).mul_(z).mul_(1 - z), factor_n * r], dim=2
        )
        z, factor_n, factors = (each.unsqueeze(1) for each in (z, factor_n, factors))
        weight, totals = promoted(self.weight_hh), adjoint_buffer(seed, final)
        deltas = delta_buffer(factors, seed, keep_deltas=keep_deltas)
        from_hidden = deltas.flatten(-2)
        sequences = (factors, deltas, z, totals[1:], totals[:-1])
        steps = timesteps(*sequences, from_hidden.flatten(1, 2), totals[:-1].flatten(1, 2), reverse=True)
        cuts = Cuts(record.reset, totals[:-1])
        for time, (factor, blocks, keep, total, earlier, delta, beside) in zip(reversed(range(len(seed))), steps):
            torch.mul(factor, total.unsqueeze(-2), out=blocks)
            earlier.addcmul_(keep, total)
            beside.addmm_(delta, weight)
            if time in cuts.times:
                cuts.after(time)
        states = StateGradients(totals[1:], totals[0], cuts.total)
        if not keep_deltas:
            return states, None
        from_input = torch.cat([from_hidden[..., : 2 * self.hidden_size], factor_n * totals[1:]], dim=-1)
        return states, Deltas(from_input, from_hidden)

    def _gates(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """r, z, n, and the recurrent product u = W_hn h + b_hn."""
        from_input, from_hidden = self.preactivations(inputs, hidden)
        input_r, input_z, input_n = from_input.chunk(3, -1)
        hidden_r, hidden_z, hidden_n = from_hidden.chunk(3, -1)
        r = torch.sigmoid(input_r + hidden_r)
        z = torch.sigmoid(input_z + hidden_z)
        return r, z, torch.tanh(input_n + r * hidden_n), hidden_n
