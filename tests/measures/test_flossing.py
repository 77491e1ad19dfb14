"""Squared Lyapunov exponents: of known recurrences, and their gradient by finite differences."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bptt.layers import GRU, LSTM, Elman, Layer, Record
from bptt.layers.reset import Reset
from bptt.measures.flossing import flossing
from bptt.shapes import leaves, map_state

pytestmark = pytest.mark.usefixtures("float64")
LAYERS: dict[str, Any] = {"elman": Elman, "gru": GRU, "lstm": LSTM}


def recorded(layer: Layer, T: int = 9, B: int = 2) -> Record:
    inputs = torch.randn(T, B, layer.input_size)
    initial = map_state(lambda leaf: torch.randn_like(leaf).tanh(), layer.initial_state(B))
    return Record(inputs, initial, torch.zeros(T, B, layer.hidden_size), None)


def value(layer: Layer, record: Record, **options: int) -> float:
    return float(flossing(layer, record, **options).detach())


def forward_exponents(layer: Layer, record: Record, sequence: int, count: int) -> np.ndarray:
    """Explicit Jacobians of one step, numpy's QR, from the documented start."""
    widths = [leaf.shape[1] for leaf in leaves(record.initial)]
    drawn = torch.randn(sum(widths), count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis, total = np.linalg.qr(drawn.numpy())[0], np.zeros(count)
    now = torch.cat([leaf[sequence : sequence + 1] for leaf in leaves(record.initial)], 1)
    for input in record.inputs[:, sequence : sequence + 1]:

        def flat(joined: Tensor, input: Tensor = input) -> Tensor:
            parts = iter(joined.split(widths, 1))
            after = layer.step(input, map_state(lambda _: next(parts), record.initial))
            return torch.cat(leaves(after), 1)

        jacobian = torch.autograd.functional.jacobian(flat, now).reshape(sum(widths), -1).numpy()
        now = flat(now).detach()
        basis, upper = np.linalg.qr(jacobian @ basis)
        total += np.log(np.abs(np.diag(upper)))
    return total / len(record.inputs)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("stride", [1, 4])
def test_value_is_that_of_explicit_jacobians(kind: str, stride: int) -> None:
    layer = LAYERS[kind](2, 3)
    record = recorded(layer)
    expected = np.mean([forward_exponents(layer, record, sequence, 2) ** 2 for sequence in range(2)])
    assert value(layer, record, num_exponents=2, stride=stride) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradient_is_that_of_finite_differences(kind: str) -> None:
    """The gradient passes through states, Jacobians and QR decompositions."""
    layer = LAYERS[kind](2, 3)
    record = recorded(layer, T=5)
    objective = flossing(layer, record, num_exponents=2)
    for parameter, found in zip(layer.parameters(), torch.autograd.grad(objective, list(layer.parameters()))):
        direction = torch.randn_like(parameter)
        ends = []
        for shift in (1e-5, -1e-5):
            with torch.no_grad():
                parameter += shift * direction
                ends.append(value(layer, record, num_exponents=2))
                parameter -= shift * direction
        expected = (ends[0] - ends[1]) / 2e-5
        assert float((found * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("kind", LAYERS)
def test_timesteps_from_the_first_later_reset_on_do_not_count(kind: str) -> None:
    """At the first timestep, a sequence begins with the state of the reset."""
    layer = LAYERS[kind](2, 3)
    record = recorded(layer)
    mask = torch.zeros(9, 2, dtype=torch.bool)
    mask[[0, 4, 6], [1, 0, 1]] = True
    began = map_state(torch.randn_like, record.initial)
    whole = record._replace(reset=Reset.at(mask, began))
    start = map_state(lambda own, new: torch.stack([own[0], new[1]]), record.initial, began)
    before = Record(record.inputs[:4], start, record.outputs[:4], None)
    expected = np.mean([forward_exponents(layer, before, sequence, 2) ** 2 for sequence in range(2)])
    assert value(layer, whole, num_exponents=2) == pytest.approx(expected, rel=1e-8)


class Leaky(Layer):
    """h_t = h_{t−1} M + tanh(W [x_t, h_{t−1}]) with a constant matrix M."""

    recurrent = ("drive.weight",)

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.drive = nn.Linear(input_size + hidden_size, hidden_size)
        self.register_buffer("leak", 0.5 * torch.eye(hidden_size))
        self.leak: Tensor

    def initial_state(self, batch_size: int) -> Tensor:
        return self.leak.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return state @ self.leak + torch.tanh(self.drive(torch.cat([input, state], -1)))


@pytest.mark.parametrize("kind", [*LAYERS.values(), Leaky])
@pytest.mark.parametrize("dropped", [False, True])
def test_half_precision_weights_have_the_gradient_of_the_same_weights_in_double_precision(
    kind: Any, dropped: bool
) -> None:
    """Finite differences of explicit Jacobians; the gradient at a dropped weight is that at its product, times 0."""
    layer = kind(2, 3).bfloat16()
    twin = copy.deepcopy(layer).double()
    record, masks = recorded(twin, T=5, B=1), {}
    seen = Record(record.inputs.float(), map_state(Tensor.float, record.initial), record.outputs.float(), None)
    if dropped:
        masks = {name: 2.0 * (torch.rand_like(twin.get_parameter(name)) < 0.5) for name in layer.recurrent}
        seen = seen._replace(weight_masks={name: mask.bfloat16() for name, mask in masks.items()})
    objective = flossing(layer, seen, num_exponents=2)
    assert not dropped or objective.item() != value(layer, seen._replace(weight_masks=None), num_exponents=2)
    for (name, parameter), found in zip(twin.named_parameters(), torch.autograd.grad(objective, [*layer.parameters()])):
        direction, ends = torch.randn_like(parameter), []
        for shift in (1e-5, -1e-5):
            moved = copy.deepcopy(twin)
            with torch.no_grad():
                moved.get_parameter(name).add_(shift * direction)
                for dropped_name, mask in masks.items():
                    moved.get_parameter(dropped_name).mul_(mask)
            ends.append(np.mean(forward_exponents(moved, record, 0, 2) ** 2))
        expected, size = (ends[0] - ends[1]) / 2e-5, found.norm() * direction.norm()
        assert size > 0
        assert float((found * direction).sum()) == pytest.approx(expected, abs=0.005 * float(size))


def test_exponents_of_a_scaled_rotation() -> None:
    """log 2 for all directions; 0 once the scale is 1."""
    for scale in (2.0, 1.0):
        layer = Elman(1, 4, nonlinearity="relu")
        with torch.no_grad():
            layer.weight_hh.copy_(scale * torch.eye(4).roll(1, 0))
            layer.bias_ih.fill_(1)
            layer.bias_hh.fill_(0)
        record = Record(torch.zeros(6, 1, 1), torch.ones(1, 4), torch.zeros(6, 1, 4), None)
        assert value(layer, record, num_exponents=9) == pytest.approx(math.log(scale) ** 2, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("off", [1, 3])
def test_directions_that_no_timestep_carries_on_are_unknown(dtype: torch.dtype, off: int) -> None:
    """Of 5 relu units some are off at every timestep, so that the Jacobians have the rank of the others."""
    layer = Elman(1, 5, nonlinearity="relu").to(dtype)
    with torch.no_grad():
        layer.weight_hh.uniform_(0.1, 1)
        layer.bias_ih.copy_(torch.tensor([-1e3] * off + [1.0] * (5 - off)))
        layer.weight_ih.fill_(0)
    record = Record(torch.zeros(6, 1, 1, dtype=dtype), torch.ones(1, 5, dtype=dtype), torch.zeros(6, 1, 5), None)
    assert math.isfinite(value(layer, record, num_exponents=5 - off))
    assert math.isnan(value(layer, record, num_exponents=6 - off))


def test_descent_brings_the_exponents_to_0() -> None:
    torch.manual_seed(0)
    layer = Elman(2, 8)
    record = recorded(layer, T=20, B=4)
    before = value(layer, record, num_exponents=4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        flossing(layer, record, num_exponents=4).backward()
        optimizer.step()
    assert value(layer, record, num_exponents=4) < 0.2 * before
