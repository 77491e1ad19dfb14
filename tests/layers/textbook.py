"""Textbook backpropagation through time, one timestep after the other: the plain form of the layers' fast recursions.

Each function takes the weights (W_ih, W_hh, b_ih, b_hh) in torch's layout, the inputs x_1 … x_T, the initial state, the
direct gradients g_1 … g_T at the outputs, and the gradient at the final state. It returns λ_t = dL/dh_t for every t
(for an LSTM also μ_t = dL/dc_t), and the gradients at the initial state, the inputs and the weights.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Weights = Sequence[Tensor]


class Gradients(NamedTuple):
    states: list[Tensor]  # λ (T, B, H); for an LSTM λ and μ
    initial: list[Tensor]
    inputs: Tensor
    weights: list[Tensor]


def elman(weights: Weights, x: Tensor, initial: Tensor, g: Tensor, final: Tensor, *, relu: bool = False) -> Gradients:
    """h_t = φ(a_t),  a_t = W_ih x_t + b_ih + W_hh h_{t−1} + b_hh."""
    w_ih, w_hh, b_ih, b_hh = weights
    h = [initial]
    for t in range(len(x)):
        a = x[t] @ w_ih.T + b_ih + h[t] @ w_hh.T + b_hh
        h.append(a.relu() if relu else a.tanh())

    states: list[Tensor] = []
    deltas: list[Tensor] = []
    arriving = final
    for t in reversed(range(len(x))):
        total = g[t] + arriving  # λ_t
        delta = total * ((h[t + 1] > 0) if relu else 1 - h[t + 1] ** 2)  # dL/da_t
        arriving = delta @ w_hh
        states, deltas = [total, *states], [delta, *deltas]
    return _gathered([states], [arriving], x, h, deltas, deltas, w_ih)


def gru(weights: Weights, x: Tensor, initial: Tensor, g: Tensor, final: Tensor) -> Gradients:
    """h_t = (1 − z) n + z h_{t−1}, with r and z gates, n = tanh(W_in x_t + b_in + r u), u = W_hn h_{t−1} + b_hn."""
    w_ih, w_hh, b_ih, b_hh = weights
    h, kept = [initial], []
    for t in range(len(x)):
        from_x, from_h = (x[t] @ w_ih.T + b_ih).chunk(3, 1), (h[t] @ w_hh.T + b_hh).chunk(3, 1)
        r, z, u = (from_x[0] + from_h[0]).sigmoid(), (from_x[1] + from_h[1]).sigmoid(), from_h[2]
        n = (from_x[2] + r * u).tanh()
        h.append((1 - z) * n + z * h[t])
        kept.append((r, z, n, u))

    states: list[Tensor] = []
    deltas_x: list[Tensor] = []
    deltas_h: list[Tensor] = []
    arriving = final
    for t in reversed(range(len(x))):
        r, z, n, u = kept[t]
        total = g[t] + arriving
        delta_n = total * (1 - z) * (1 - n**2)
        delta_z = total * (h[t] - n) * z * (1 - z)
        delta_r = delta_n * u * r * (1 - r)
        deltas_x = [torch.cat([delta_r, delta_z, delta_n], 1), *deltas_x]
        deltas_h = [torch.cat([delta_r, delta_z, delta_n * r], 1), *deltas_h]
        arriving = total * z + deltas_h[0] @ w_hh
        states = [total, *states]
    return _gathered([states], [arriving], x, h, deltas_x, deltas_h, w_ih)


def lstm(
    weights: Weights, x: Tensor, initial: tuple[Tensor, Tensor], g: Tensor, final: tuple[Tensor, Tensor]
) -> Gradients:
    """c_t = f c_{t−1} + i g,  h_t = o tanh(c_t); the candidate g is called `new` here."""
    w_ih, w_hh, b_ih, b_hh = weights
    h, c, kept = [initial[0]], [initial[1]], []
    for t in range(len(x)):
        i, f, new, o = (x[t] @ w_ih.T + b_ih + h[t] @ w_hh.T + b_hh).chunk(4, 1)
        i, f, new, o = i.sigmoid(), f.sigmoid(), new.tanh(), o.sigmoid()
        c.append(f * c[t] + i * new)
        h.append(o * c[t + 1].tanh())
        kept.append((i, f, new, o))

    states_h: list[Tensor] = []
    states_c: list[Tensor] = []
    deltas: list[Tensor] = []
    arriving_h, arriving_c = final
    for t in reversed(range(len(x))):
        i, f, new, o = kept[t]
        total_h = g[t] + arriving_h  # λ_t
        total_c = arriving_c + total_h * o * (1 - c[t + 1].tanh() ** 2)  # μ_t
        delta_i, delta_f = total_c * new * i * (1 - i), total_c * c[t] * f * (1 - f)
        delta_new, delta_o = total_c * i * (1 - new**2), total_h * c[t + 1].tanh() * o * (1 - o)
        deltas = [torch.cat([delta_i, delta_f, delta_new, delta_o], 1), *deltas]
        arriving_h, arriving_c = deltas[0] @ w_hh, total_c * f
        states_h, states_c = [total_h, *states_h], [total_c, *states_c]
    return _gathered([states_h, states_c], [arriving_h, arriving_c], x, h, deltas, deltas, w_ih)


def _gathered(
    states: list[list[Tensor]],
    initial: list[Tensor],
    x: Tensor,
    h: list[Tensor],
    deltas_x: list[Tensor],
    deltas_h: list[Tensor],
    w_ih: Tensor,
) -> Gradients:
    """dL/dx_t = W_ihᵀ δ_t, and the sums over time dL/dW_ih = Σ δ_t x_tᵀ, dL/dW_hh = Σ δ_t h_{t−1}ᵀ, dL/db = Σ δ_t."""
    at_w_ih = torch.stack([delta.T @ input for delta, input in zip(deltas_x, x)]).sum(0)
    at_w_hh = torch.stack([delta.T @ before for delta, before in zip(deltas_h, h)]).sum(0)
    at_biases = [torch.cat(deltas).sum(0) for deltas in (deltas_x, deltas_h)]
    inputs = torch.stack([delta @ w_ih for delta in deltas_x])
    return Gradients([torch.stack(part) for part in states], initial, inputs, [at_w_ih, at_w_hh, *at_biases])
