"""Ω against a double loop over timesteps and sequences with explicit Jacobian matrices."""

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from support import oracles
from torch import Tensor, nn

from bptt.layers import GRU, LSTM, Elman, Layer, LSTMState, Record, StateGradients
from bptt.layers.influence import Influence
from bptt.layers.reset import Reset
from bptt.measures import omega
from bptt.shapes import leaves, map_state

pytestmark = pytest.mark.usefixtures("float64")
T, B, D, H = 6, 3, 2, 4

LAYERS: dict[str, Callable[[], Layer]] = {
    "elman": lambda: Elman(D, H),
    "irnn": lambda: Elman(D, H, nonlinearity="relu"),
    "gru": lambda: GRU(D, H),
    "lstm": lambda: LSTM(D, H),
}


class OwnElman(Layer):
    """Elman's equations as a cell of one's own."""

    recurrent = ("weight",)

    def __init__(self, twin: Layer, activation: Callable[[Tensor], Tensor]):
        super().__init__(D, H)
        w_x, w_h, b_x, b_h = (weight.detach().clone() for weight in oracles.layer_weights(twin))
        self.weight = nn.Parameter(w_h)
        self.from_input = lambda x: x @ w_x.T + b_x + b_h
        self.activation = activation

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, H)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return self.activation(self.from_input(input) + state @ self.weight.T)


class Cascade(Layer):
    """State (h, (p, q)): q is computed first, p from q, h from both."""

    recurrent = ("weight",)

    def __init__(self) -> None:
        super().__init__(D, H)
        self.weight = nn.Parameter(torch.randn(H, H))
        self.drive = nn.Linear(D, H)
        self.register_buffer("kept", 0.5 * torch.eye(H))
        self.kept: Tensor

    def initial_state(self, batch_size: int) -> Any:
        return torch.randn(batch_size, H), (torch.randn(batch_size, H), torch.randn(batch_size, H))

    def step(self, input: Tensor, state: Any) -> Any:
        h, (p, q) = state
        q = q @ self.kept + torch.tanh(self.drive(input) + h @ self.weight.T)
        p = torch.sin(p) + q.square()
        return torch.tanh(p * q), (p, q)


Joined = Callable[[Tensor, Tensor], Tensor]  # one sequence's input (D,) and joined state (S,) to the next state (S,)


def joined_cell(kind: str, weights: list[Tensor]) -> Joined:
    """An oracle's equations on a joined state, (h,) or (h, c)."""

    def cell(x: Tensor, state: Tensor) -> Tensor:
        parts = tuple(part.unsqueeze(0) for part in state.split(H))
        return torch.cat(oracles.CELLS[kind](weights, x.unsqueeze(0), parts), 1).squeeze(0)

    return cell


def cascade_cell(layer: Cascade) -> Joined:
    def cell(x: Tensor, state: Tensor) -> Tensor:
        h, p, q = state.split(H)
        q = q / 2 + torch.tanh(layer.drive(x) + layer.weight @ h)
        p = torch.sin(p) + q * q
        return torch.cat([torch.tanh(p * q), p, q])

    return cell


Steps = list[tuple[Tensor, Tensor, Tensor]]  # x_t, s_{t−1} and δ_t of each timestep of each sequence


def look_back(cell: Joined, record: Record, seed: Tensor, final: Any) -> Steps:
    """Every timestep's gradient, sequence by sequence, by matrix products."""
    found = []
    for b in range(record.inputs.shape[1]):
        states = [torch.cat([leaf[b] for leaf in leaves(record.initial)])]
        for x in record.inputs[:, b]:
            states.append(cell(x, states[-1]).detach())
        arriving = torch.zeros_like(states[0]) if final is None else torch.cat([leaf[b] for leaf in leaves(final)])
        for t in reversed(range(len(record.inputs))):
            x, before = record.inputs[t, b], states[t]
            delta = arriving + nn.functional.pad(seed[t, b], (0, len(before) - H))
            found.append((x, before, delta.detach()))
            arriving = torch.autograd.functional.jacobian(partial(cell, x), before).T @ delta
    return found


def naive(cell: Joined, steps: Steps) -> float:
    terms = []
    for x, before, delta in steps:
        through = torch.autograd.functional.jacobian(partial(cell, x), before).T @ delta
        terms.append(float((through @ through / (delta @ delta) - 1) ** 2))
    return sum(terms) / len(terms)


def forward(layer: Layer) -> tuple[Record, Tensor, Any]:
    """A recorded pass from a random state, seeds for every timestep, and a gradient that arrives from later chunks."""
    inputs = torch.randn(T, B, D)
    initial = map_state(torch.randn_like, layer.initial_state(B))
    with torch.no_grad():
        outputs, final = layer(inputs, initial)
    return Record(inputs, initial, outputs, final), torch.randn(T, B, H), map_state(torch.randn_like, initial)


def own(layer: Layer, record: Record, seed: Tensor, final: Any = None) -> Tensor:
    return omega(layer, [record], [layer.adjoint(record, seed, final)])


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("arrives", [False, True])
def test_omega_of_the_stock_layers(kind: str, arrives: bool) -> None:
    layer = LAYERS[kind]()
    record, seed, final = forward(layer)
    final = final if arrives else None
    cell = joined_cell(kind, oracles.layer_weights(layer))
    expected = naive(cell, look_back(cell, record, seed, final))
    assert expected > 0.01
    assert own(layer, record, seed, final).item() == pytest.approx(expected, rel=1e-10)


def test_omega_of_a_state_whose_tensors_depend_on_one_another() -> None:
    """Total derivatives, as they come, count the path from q over p to h three times."""
    layer = Cascade()
    record, seed, final = forward(layer)
    cell = cascade_cell(layer)
    expected = naive(cell, look_back(cell, record, seed, final))
    assert own(layer, record, seed, final).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
def test_omega_with_resets_is_that_of_the_pieces(kind: str) -> None:
    """No gradient arrives from before a reset, so the timestep of a reset has no term."""
    layer = LAYERS[kind]()
    inputs, initial, seed = (
        torch.randn(T, B, D),
        map_state(torch.randn_like, layer.initial_state(B)),
        torch.randn(T, B, H),
    )
    mask = torch.zeros(T, B, dtype=torch.bool)
    mask[2, 0] = mask[4, 0] = mask[3, 2] = True
    reset = Reset.at(mask, map_state(torch.randn_like, initial))
    with torch.no_grad():
        outputs, final = layer.forward_with_resets(inputs, initial, reset)
    record = Record(inputs, initial, outputs, final, reset=reset)
    cell = joined_cell(kind, oracles.layer_weights(layer))
    steps: Steps = []
    for b in range(B):
        borders = [0, *mask[:, b].nonzero().flatten().tolist(), T]
        for first, last in pairwise(borders):
            whole = Record(inputs[first:last], reset.state if first else initial, outputs[first:last], None)
            alone = slice(b, b + 1)
            found = look_back(cell, whole.columns(alone), seed[first:last, alone], None)  # the latest timestep first
            steps += found[:-1] if first else found
    assert own(layer, record, seed).item() == pytest.approx(naive(cell, steps), rel=1e-10)


def by_finite_differences(function: Callable[[Tensor], float], weight: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Central finite differences, entry by entry."""
    found = torch.zeros_like(weight)
    for index in range(weight.numel()):
        shift = torch.zeros_like(weight)
        shift.view(-1)[index] = epsilon
        found.view(-1)[index] = (function(weight + shift) - function(weight - shift)) / (2 * epsilon)
    return found


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_gradient_with_states_and_gradients_held_fixed(kind: str) -> None:
    layer = LAYERS[kind]()
    record, seed, final = forward(layer)
    w_x, w_h, b_x, b_h = (weight.detach().clone() for weight in oracles.layer_weights(layer))
    steps = look_back(joined_cell(kind, [w_x, w_h, b_x, b_h]), record, seed, final)
    expected = by_finite_differences(lambda weight: naive(joined_cell(kind, [w_x, weight, b_x, b_h]), steps), w_h)
    (found,) = torch.autograd.grad(own(layer, record, seed, final), oracles.layer_weights(layer)[1])
    assert expected.norm() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_a_cell_in_half_precision_has_the_gradient_of_the_same_weights_in_double_precision() -> None:
    layer = Cascade().bfloat16()
    twin = copy.deepcopy(layer).double()
    record, seed, final = forward(twin)
    steps = look_back(cascade_cell(twin), record, seed, final)

    def of(weight: Tensor) -> float:
        twin.weight = nn.Parameter(weight)
        return naive(cascade_cell(twin), steps)

    expected = by_finite_differences(of, twin.weight.detach().clone())
    single = Record(*(map_state(Tensor.float, part) for part in record[:4]))
    value = own(layer, single, seed.float(), map_state(Tensor.float, final))
    assert value.item() == pytest.approx(naive(cascade_cell(twin), steps), rel=1e-3)
    (found,) = torch.autograd.grad(value, layer.weight)
    assert (found - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("kind", ["elman", "irnn"])
def test_gradient_of_elman_with_the_slopes_held_fixed_too(kind: str) -> None:
    """δ_t ∂h_t/∂h_{t−1} = (φ′_t ∘ δ_t) W_hh, where φ′_t is known from h_t."""
    layer = LAYERS[kind]()
    record, seed, final = forward(layer)
    weight = oracles.layer_weights(layer)[1].detach()
    steps = look_back(joined_cell(kind, oracles.layer_weights(layer)), record, seed, final)
    deltas = torch.stack([delta for *_, delta in steps]).view(B, T, H).flip(1)
    h = record.outputs.transpose(0, 1)
    slopes = 1 - h**2 if kind == "elman" else (h > 0).double()

    def of(weight: Tensor) -> float:
        ratios = (((slopes * deltas) @ weight) ** 2).sum(-1) / (deltas**2).sum(-1)
        return float(((ratios - 1) ** 2).mean())

    (found,) = torch.autograd.grad(own(layer, record, seed, final), oracles.layer_weights(layer)[1])
    torch.testing.assert_close(found, by_finite_differences(of, weight), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["elman", "irnn"])
def test_elman_is_as_a_cell_of_ones_own(kind: str) -> None:
    """In autograd the slope depends on the weights, except for relu."""
    layer = LAYERS[kind]()
    twin = OwnElman(layer, torch.tanh if kind == "elman" else torch.relu)
    record, seed, final = forward(layer)
    values = [own(each, record, seed, final) for each in (layer, twin)]
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-12)
    (first,) = torch.autograd.grad(values[0], oracles.layer_weights(layer)[1])
    (second,) = torch.autograd.grad(values[1], twin.weight)
    assert torch.allclose(first, second, rtol=1e-10) == (kind == "irnn")


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.0), (2.0, 9.0), (0.5, 0.5625)])
def test_linear_recurrence_by_a_scaled_rotation(scale: float, expected: float) -> None:
    """(scale² − 1)²: a permutation and positive inputs keep every relu active."""
    layer = Elman(D, H, nonlinearity="relu")
    with torch.no_grad():
        w_x, w_h, b_x, b_h = oracles.layer_weights(layer)
        w_h.copy_(scale * torch.eye(H).roll(1, 0))
        for weight in (w_x, b_x, b_h):
            weight.abs_()
    inputs, initial = torch.rand(T, B, D), torch.rand(B, H)
    outputs, final = layer(inputs, initial)
    record, seed = Record(inputs, initial, outputs, final), torch.randn(T, B, H)
    assert own(layer, record, seed).item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("kind", LAYERS)
def test_stretches_of_one_update_count_as_one(kind: str) -> None:
    """A long and a short one, each with the gradient that the one after it hands over."""
    layer = LAYERS[kind]()
    record, seed, final = forward(layer)
    whole = layer.adjoint(record, seed, final)
    records, gradients = [], []
    arriving = final
    for part in (slice(4, T), slice(0, 4)):
        with torch.no_grad():
            _, start = layer(record.inputs[: part.start], record.initial) if part.start else (None, record.initial)
        records.append(Record(record.inputs[part], start, record.outputs[part], None))
        gradients.append(layer.adjoint(records[-1], seed[part], arriving))
        arriving = gradients[-1].initial
    split = omega(layer, records[::-1], gradients[::-1])
    assert split.item() == pytest.approx(omega(layer, [record], [whole]).item(), rel=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
def test_timesteps_without_gradient_do_not_count(kind: str) -> None:
    """A loss only at timestep 2 of the second sequence: later timesteps and other sequences do not contribute."""
    layer = LAYERS[kind]()
    record, seed, _ = forward(layer)
    seed[2:] = 0
    seed[:, [0, 2]] = 0
    part = slice(1, 2)
    initial = map_state(lambda leaf: leaf[part], record.initial)
    alone = Record(record.inputs[:2, part], initial, record.outputs[:2, part], None)
    cell = joined_cell(kind, oracles.layer_weights(layer))
    expected = naive(cell, look_back(cell, alone, seed[:2, part], None))
    assert own(layer, record, seed).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", LAYERS)
def test_without_any_gradient_there_is_nothing_to_regularise(kind: str) -> None:
    layer = LAYERS[kind]()
    record, seed, _ = forward(layer)
    value = own(layer, record, torch.zeros_like(seed))
    assert value.item() == 0
    (found,) = torch.autograd.grad(value, oracles.layer_weights(layer)[1], materialize_grads=True)
    assert not found.any()


@pytest.mark.parametrize("kind", LAYERS)
def test_the_scale_of_the_loss_cancels(kind: str) -> None:
    """This also holds if squares of float32 gradients would underflow or overflow."""
    layer = LAYERS[kind]()
    record, seed, _ = forward(layer)
    layer.float()
    record = Record(*(map_state(Tensor.float, part) for part in record[:4]))
    expected = own(layer, record, seed.float()).item()
    for scale in (1e-28, 1e28):
        assert own(layer, record, (scale * seed).float()).item() == pytest.approx(expected, rel=1e-4)


def test_only_what_multiplies_the_state_is_regularised() -> None:
    layer = LSTM(D, H)
    record, seed, _ = forward(layer)
    gradients = layer.adjoint(record, seed)
    states = gradients.states._replace(c=gradients.states.c.requires_grad_())
    value = omega(layer, [record], [StateGradients(LSTMState(*states), gradients.initial)])
    (constant,) = torch.autograd.grad(value, states.c, materialize_grads=True)
    assert not constant.any(), "gradients of the loss are constants"


def test_a_cell_that_does_not_name_its_recurrent_parameters_is_refused() -> None:
    layer = Influence(1, 23).double()
    record = Record(torch.zeros(2, 1, 1), layer.initial_state(1), torch.ones(2, 1, 23), None)
    gradients = layer.adjoint(record, torch.ones(2, 1, 23))
    with pytest.raises(ValueError) as refused:
        omega(layer, [record], [gradients])
    assert str(refused.value) == (
        "regulariser omega needs a layer that names the parameters which multiply its state, got Influence; "
        "set `recurrent` on its class, or use regulariser=none"
    )
