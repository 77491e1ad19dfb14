"""Independent oracles: the same quantities computed cell by cell in plain torch, with separate formulas.

Nothing here calls the package. Models are read by the names of their parameters, and a batch by its tensors. Graphs
are built on the model's own parameters, so that torch's autograd of the whole unrolled graph gives the gradients that
the package's must equal.

T timesteps, B sequences, D input size, H hidden size, V output size. The state of a layer is a tuple of tensors here:
(h,) or (h, c).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

CellState = tuple[Tensor, ...]
Cell = Callable[[Sequence[Tensor], Tensor, CellState], CellState]
Weights = TypeVar("Weights")  # of one layer, in whatever form its cell takes them


def tanh_cell(weights: Sequence[Tensor], x: Tensor, state: CellState) -> CellState:
    w_x, w_h, b_x, b_h = weights
    return (torch.tanh(x @ w_x.T + b_x + state[0] @ w_h.T + b_h),)


def relu_cell(weights: Sequence[Tensor], x: Tensor, state: CellState) -> CellState:
    w_x, w_h, b_x, b_h = weights
    return ((x @ w_x.T + b_x + state[0] @ w_h.T + b_h).clamp(min=0),)


def gru_cell(weights: Sequence[Tensor], x: Tensor, state: CellState) -> CellState:
    """The reset gate scales W_hn h + b_hn, after the product and with its bias, as in torch."""
    (h,) = state
    (xr, xz, xn), (hr, hz, hn) = _blocks(weights, x, h, 3)
    r, z = _logistic(xr + hr), _logistic(xz + hz)
    n = torch.tanh(xn + r * hn)
    return (n + z * (h - n),)


def lstm_cell(weights: Sequence[Tensor], x: Tensor, state: CellState) -> CellState:
    """Rows in the order input, forget, candidate, output."""
    h, c = state
    from_x, from_h = _blocks(weights, x, h, 4)
    i, f, g, o = (a + b for a, b in zip(from_x, from_h))
    c = _logistic(f) * c + _logistic(i) * torch.tanh(g)
    return _logistic(o) * torch.tanh(c), c


def lru_cell(weights: Sequence[Tensor], x: Tensor, state: CellState) -> CellState:
    """LRU in complex numbers. Real and imaginary part of a unit are adjacent in h and in the rows of W."""
    log_nu, log_theta, log_gamma, w = weights
    h, b = torch.complex(state[0][:, ::2], state[0][:, 1::2]), torch.complex(x @ w[::2].T, x @ w[1::2].T)
    h = torch.exp(torch.complex(-log_nu.exp(), log_theta.exp())) * h + log_gamma.exp() * b
    return (torch.stack([h.real, h.imag], 2).flatten(1),)


def mingru_cell(weights: Sequence[Tensor], x: Tensor, state: CellState) -> CellState:
    w_z, b_z, w_h, b_h = weights
    z = _logistic(x @ w_z.T + b_z)
    return ((1 - z) * state[0] + z * (x @ w_h.T + b_h),)


def minlstm_cell(weights: Sequence[Tensor], x: Tensor, state: CellState) -> CellState:
    w_gates, b_gates, w_h, b_h = weights
    f, i = _logistic(x @ w_gates.T + b_gates).split(len(b_h), 1)
    return (f / (f + i) * state[0] + i / (f + i) * (x @ w_h.T + b_h),)


def rg_lru_cell(weights: Sequence[Tensor], x: Tensor, state: CellState) -> CellState:
    log_odds, w_gates, b_gates, w_u, b_u = weights
    r, i = _logistic(x @ w_gates.T + b_gates).split(len(b_u), 1)
    a = _logistic(log_odds) ** (8 * r)
    return (a * state[0] + torch.sqrt(1 - a**2) * i * (x @ w_u.T + b_u),)


CELLS: dict[str, Cell] = {
    "elman": tanh_cell,
    "irnn": relu_cell,
    "gru": gru_cell,
    "lstm": lstm_cell,
    "lru": lru_cell,
    "mingru": mingru_cell,
    "minlstm": minlstm_cell,
    "rg_lru": rg_lru_cell,
}


def _blocks(weights: Sequence[Tensor], x: Tensor, h: Tensor, count: int) -> tuple[list[Tensor], list[Tensor]]:
    w_x, w_h, b_x, b_h = weights
    size = h.shape[1]
    rows = [slice(k * size, (k + 1) * size) for k in range(count)]
    return [x @ w_x[row].T + b_x[row] for row in rows], [h @ w_h[row].T + b_h[row] for row in rows]


def _logistic(a: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-a))


class Unrolled(NamedTuple):
    """A whole graph: predictions (T, B, V), and the state of layer l after timestep t (from 0) as states[l][t]."""

    predictions: Tensor
    states: list[list[CellState]]

    @property
    def final(self) -> list[CellState]:
        return [layer[-1] for layer in self.states]


def unroll(
    cell: Callable[[Weights, Tensor, CellState], CellState],
    levels: Sequence[Weights],
    inputs: Tensor,
    initial: Sequence[CellState],
    masks: Sequence[Tensor] = (),
) -> list[list[CellState]]:
    """Run a stack over (T, B, D), timestep by timestep from the lowest layer up; masks[l] (T, B, H) dropout above l."""
    now = list(initial)
    states: list[list[CellState]] = [[] for _ in levels]
    for t in range(len(inputs)):
        below = inputs[t]
        for level, weights in enumerate(levels):
            now[level] = cell(weights, below, now[level])
            for part in now[level]:
                if part.requires_grad:
                    part.retain_grad()
            states[level].append(now[level])
            below = now[level][0] * masks[level][t] if level < len(masks) else now[level][0]
    return states


def layer_weights(module: nn.Module, prefix: str = "") -> list[Tensor]:
    """The parameters of a layer in their order: W_ih, W_hh, b_ih, b_hh for a stock layer."""
    return [weight for name, weight in module.named_parameters() if name.startswith(prefix)]


def zero_states(kind: str, model: nn.Module, batch_size: int) -> list[CellState]:
    """h = 0 (and c = 0) for every layer of a model."""
    weight = dict(model.named_parameters())["readout.weight"]
    parts = 2 if kind == "lstm" else 1
    zeros = weight.new_zeros(batch_size, weight.shape[1])
    return [(zeros,) * parts for _ in range(num_layers(model))]


def learnt_states(kind: str, model: nn.Module, batch_size: int) -> list[CellState]:
    """The parameters `initial.0`, `initial.1`, …, layer by layer, repeated for every sequence."""
    named = dict(model.named_parameters())
    parts = 2 if kind == "lstm" else 1
    rows = [torch.cat([named[f"initial.{k}"]] * batch_size) for k in range(parts * num_layers(model))]
    return [tuple(rows[k : k + parts]) for k in range(0, len(rows), parts)]


def num_layers(model: nn.Module) -> int:
    return len({name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("layers.")})


def run_model(
    kind: str,
    model: nn.Module,
    inputs: Tensor,
    initial: Sequence[CellState] | None = None,
    masks: Sequence[Tensor] = (),
) -> Unrolled:
    """A sequence model over features (T, B, D), as one unrolled graph on its own parameters."""
    named = dict(model.named_parameters())
    if initial is None:
        initial_states = learnt_states if "initial.0" in named else zero_states
        initial = initial_states(kind, model, inputs.shape[1])
    below = inputs @ named["encoder.weight"].T if "encoder.weight" in named else inputs
    levels = [layer_weights(model, f"layers.{level}.") for level in range(num_layers(model))]
    states = unroll(CELLS[kind], levels, below, initial, masks)
    predictions = [state[0] @ named["readout.weight"].T + named["readout.bias"] for state in states[-1]]
    return Unrolled(torch.stack(predictions), states)


def squared_error(predictions: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    """½-free squared error, summed over V, averaged one by one over the timesteps and sequences inside the mask."""
    T, B = predictions.shape[:2]
    terms = [
        ((predictions[t, b] - targets[t, b]) ** 2).sum()
        for t in range(T)
        for b in range(B)
        if mask is None or bool(mask[t, b])
    ]
    return torch.stack(terms).sum() / len(terms)


def gradients(loss: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Plain autograd of the whole graph; zeros for a parameter that the loss does not depend on."""
    names, parameters = zip(*model.named_parameters())
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True, retain_graph=True)
    return dict(zip(names, gradients))


def grads(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the gradients in `.grad`; zeros for parameters without one."""
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }


def relative_error(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """‖got − expected‖ / ‖expected‖ over all parameters together."""
    assert got.keys() == expected.keys()
    difference = torch.cat([(got[name] - expected[name]).flatten() for name in expected]).norm()
    return float(difference / torch.cat([value.flatten() for value in expected.values()]).norm())


def step_by_hand(model: nn.Module, gradient: dict[str, Tensor], rate: float) -> None:
    """Plain gradient descent, θ ← θ − rate · g."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.sub_(rate * gradient[name])


def one_hot(tokens: Tensor, size: int) -> Tensor:
    """Rows of the identity matrix."""
    return torch.eye(size)[tokens.long()]
