"""All measures work for a user's own cell that only defines `step` and `initial_state`; with analytic oracles."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning import Trainer
from support import flow_oracle, oracles
from torch import Tensor, nn

from bptt.estimators import Chunked, Full
from bptt.layers import LSTM, Influence, Layer, Record
from bptt.lightning.callbacks.gradient_flow import GradientFlow
from bptt.lightning.callbacks.jacobian_spectrum import JacobianSpectrum
from bptt.lightning.callbacks.parameter_norms import ParameterNorms
from bptt.lightning.data import TaskData
from bptt.lightning.descriptions import description
from bptt.lightning.module import BPTTModule
from bptt.measures import (
    LayerFlow,
    PassRecorder,
    by_timestep_and_lag,
    decay_rate,
    exact_flows,
    frobenius_norms,
    horizon,
    jacobian_products,
    lyapunov_exponents,
    manual_gradients,
    singular_values,
)
from bptt.model import SequenceModel
from bptt.shapes import leaves, map_state
from bptt.tasks.adding import Adding
from bptt.tasks.base import Batch

pytestmark = pytest.mark.usefixtures("float64")

T, B, D, V, H = 10, 3, 2, 2, 4


class MinimalGatedUnit(Layer):
    """Minimal gated unit: one gate is both forget gate and reset gate (Zhou et al. 2016)."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.gate = nn.Linear(input_size + hidden_size, hidden_size)
        self.candidate = nn.Linear(input_size + hidden_size, hidden_size)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.gate.weight.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        f = torch.sigmoid(self.gate(torch.cat([input, state], 1)))
        n = torch.tanh(self.candidate(torch.cat([input, f * state], 1)))
        return torch.lerp(state, n, f)


def minimal_gated_unit(weights: dict[str, Tensor], x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (h,) = state
    f = 1 / (1 + torch.exp(-(torch.cat([x, h], 1) @ weights["gate.weight"].T + weights["gate.bias"])))
    a = torch.cat([x, f * h], 1) @ weights["candidate.weight"].T + weights["candidate.bias"]
    n = 1 - 2 / (torch.exp(2 * a) + 1)
    return ((1 - f) * h + f * n,)


class SlowMemory(Layer):
    """A tanh network with a leaky average of its past (after Mozer 1992); the state is a plain tuple (h, m)."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weights = nn.Linear(input_size + 2 * hidden_size, hidden_size)
        self.leak = nn.Parameter(torch.randn(hidden_size))

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        zeros = self.leak.new_zeros(batch_size, self.hidden_size)
        return zeros, zeros

    def step(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.weights(torch.cat([input, *state], 1)))
        return h, torch.lerp(h, state[1], torch.sigmoid(self.leak))


def slow_memory(weights: dict[str, Tensor], x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    h, m = state
    keep = 1 / (1 + torch.exp(-weights["leak"]))
    h = torch.tanh(torch.cat([x, h, m], 1) @ weights["weights.weight"].T + weights["weights.bias"])
    return h, keep * m + (1 - keep) * h


class StateInOutputs(MinimalGatedUnit):
    """A loop of its own, whose last output and final state are one tensor."""

    def forward(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs = []
        for input in inputs:
            state = self.step(input, state)
            outputs.append(state)
        return torch.stack(outputs), state


class StateOfOutputs(StateInOutputs):
    """A final state that is taken from the outputs."""

    def forward(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs, _ = super().forward(inputs, state)
        return outputs, outputs[-1]


class Linear(Layer):
    """h_t = W h_{t−1} + x_t with a fixed W: nothing to learn in the layer, and everything known about its gradient."""

    weight: Tensor

    def __init__(self, input_size: int, hidden_size: int, weight: Tensor):
        super().__init__(input_size, hidden_size)
        self.register_buffer("weight", weight)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.weight.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return state @ self.weight.T + input


class ClockState(NamedTuple):
    h: Tensor
    phase: Tensor


class Clocked(Layer):
    """A leaky unit driven by a phase, which runs on by itself: a part of the state that depends on no parameter."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weights = nn.Linear(input_size + hidden_size, hidden_size)

    def initial_state(self, batch_size: int) -> ClockState:
        zeros = self.weights.weight.new_zeros(batch_size, self.hidden_size)
        return ClockState(zeros, zeros)

    def step(self, input: Tensor, state: ClockState) -> ClockState:
        candidate = torch.tanh(self.weights(torch.cat([input, state.h], 1)))
        return ClockState(torch.lerp(state.h, candidate, torch.sin(state.phase) ** 2), state.phase + 0.3)


def clocked(weights: dict[str, Tensor], x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    h, phase = state
    n = torch.tanh(torch.cat([x, h], 1) @ weights["weights.weight"].T + weights["weights.bias"])
    return h + (n - h) * torch.sin(phase) ** 2, phase + 0.3


class Delayed(Layer):
    """A tanh network that sees the input before, too: a part of the state that depends on no earlier state."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weights = nn.Linear(input_size + 2 * hidden_size, hidden_size)

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        zeros = self.weights.weight.new_zeros(batch_size, self.hidden_size)
        return zeros, zeros

    def step(self, input: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        kept = nn.functional.pad(input, (0, self.hidden_size - self.input_size))
        return torch.tanh(self.weights(torch.cat([input, *state], 1))), kept


def delayed(weights: dict[str, Tensor], x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    h = torch.tanh(torch.cat([x, *state], 1) @ weights["weights.weight"].T + weights["weights.bias"])
    return h, torch.cat([x, x.new_zeros(len(x), h.shape[1] - x.shape[1])], 1)


CELLS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "minimal gated unit": (MinimalGatedUnit, minimal_gated_unit),
    "slow memory": (SlowMemory, slow_memory),
    "clocked": (Clocked, clocked),
    "delayed": (Delayed, delayed),
    "state in outputs": (StateInOutputs, minimal_gated_unit),
    "state of outputs": (StateOfOutputs, minimal_gated_unit),
}
cells = pytest.mark.parametrize("name", CELLS)


def recorded(layer: Layer, length: int = T, batch_size: int = B) -> Record:
    inputs = torch.randn(length, batch_size, layer.input_size)
    initial = map_state(torch.randn_like, layer.initial_state(batch_size))
    with torch.no_grad():
        return Record(inputs, initial, *layer(inputs, initial))


def squared(predictions: Tensor, batch: Batch) -> Tensor:
    return (predictions - batch.targets).square().sum(-1).mean()


def network(make: Any, **options: Any) -> SequenceModel:
    sizes = {"input_size": D, "output_size": V, "hidden_size": H, "num_layers": 2} | options
    return SequenceModel(make, **sizes)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float((found[name] - value).norm()) <= 1e-10 * float(value.norm()), name


@cells
def test_adjoint_and_gradients_are_autograds(name: str) -> None:
    layer = CELLS[name][0](D, H)
    record, seed = recorded(layer), torch.randn(T, B, H)
    final = map_state(torch.randn_like, record.final)
    weights = dict(layer.named_parameters())
    inputs = record.inputs.clone().requires_grad_()
    initial = tuple(leaf.clone().requires_grad_() for leaf in leaves(record.initial))
    (states,) = oracles.unroll(CELLS[name][1], [weights], inputs, [initial])
    objective = (torch.stack([state[0] for state in states]) * seed).sum()
    objective = objective + sum((a * b).sum() for a, b in zip(states[-1], leaves(final)))
    at = [state[part] for part in range(len(initial)) for state in states]
    truth = torch.autograd.grad(objective, [*at, *initial, inputs, *weights.values()])
    found = layer.gradients(record, seed, final)
    got = [*(row for leaf in leaves(found.states.states) for row in leaf), *leaves(found.states.initial), found.inputs]
    got += [found.parameters[key] for key in weights]
    for one, other in zip(got, truth, strict=True):
        assert float((one - other).norm()) <= 1e-10 * float(other.norm())
    alone = layer.adjoint(record, seed, final)
    assert all(map(torch.equal, leaves(alone.states), leaves(found.states.states)))
    assert type(alone.states) is type(record.initial)


@cells
@pytest.mark.parametrize("way", ["full", "chunk", "sequence"])
def test_gradient_flow(name: str, way: Any) -> None:
    make, cell = CELLS[name]
    model = network(make)
    batch = Batch(torch.randn(T, B, D), torch.randn(T, B, V))
    estimator = Full(4) if way == "full" else Chunked(4, update=way)
    state: Any = model.initial_state(B)
    with PassRecorder(model, num_sequences=B) as watch:
        for update in estimator.updates(model, squared, batch, state):
            flows = by_timestep_and_lag(model, watch.take(update.passes), factor=B, lag_factor=B, num_losses=1)
            part = batch.between(update.start, update.stop)
            truth = flow_oracle.flows(
                cell,
                [dict(layer.named_parameters()) for layer in model.layers],
                (model.get_parameter("readout.weight"), model.get_parameter("readout.bias")),
                part.inputs,
                part.targets,
                torch.full((part.num_timesteps, B), 1 / part.num_timesteps),
                [tuple(leaves(layer)) for layer in state],
                cuts=() if way == "full" else range(4, part.num_timesteps, 4),
            )
            for got, right in zip(flows, truth, strict=True):
                # A part of the state that no parameter acts on is not asked for its gradient where segments meet.
                shown = 1 if name in ("clocked", "delayed") else None
                for found, norms in list(zip(got.by_timestep.values(), right.by_timestep, strict=True))[:shown]:
                    torch.testing.assert_close(found, norms, rtol=1e-10, atol=1e-13)
                for found, norms in list(zip(got.by_lag.values(), right.by_lag, strict=True))[:shown]:
                    torch.testing.assert_close(found, norms, rtol=1e-10, atol=1e-13)
                assert got.transport == pytest.approx(right.transport)
                assert next(iter(got.by_timestep)) == "h"
            state = update.state


@cells
def test_manual_gradients(name: str) -> None:
    model = network(CELLS[name][0], embedding_size=3)
    batch = Batch(torch.randn(T, B, D), torch.randn(T, B, V))
    state = model.initial_state(B)
    weights = dict(model.named_parameters())
    levels = [{key[9:]: w for key, w in weights.items() if key.startswith(f"layers.{level}.")} for level in range(2)]
    initial = [tuple(leaves(layer)) for layer in state]
    states = oracles.unroll(CELLS[name][1], levels, batch.inputs @ weights["encoder.weight"].T, initial)
    outputs = torch.stack([each[0] for each in states[-1]])
    predictions = outputs @ weights["readout.weight"].T + weights["readout.bias"]
    truth = oracles.gradients(oracles.squared_error(predictions, batch.targets, None), model)
    assert_same(manual_gradients(model, squared, batch, state), truth)


@cells
def test_jacobian_products(name: str) -> None:
    """∂h_T/∂h_t through all of the state, row by row by autograd of the unrolled graph."""
    layer = CELLS[name][0](D, H)
    record = recorded(layer, 12)
    initial = tuple(leaf[1:2] for leaf in leaves(record.initial))
    inputs = record.inputs[:, 1:2]
    (states,) = oracles.unroll(CELLS[name][1], [dict(layer.named_parameters())], inputs, [initial])
    outputs = [state[0] for state in states]
    rows = [torch.autograd.grad(unit, outputs, retain_graph=True) for unit in outputs[-1][0]]
    truth = torch.stack([torch.cat(row) for row in rows], 1)
    found = jacobian_products(layer, record, sequence=1)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(singular_values(layer, record, sequence=1), torch.linalg.svdvals(truth))
    generator = torch.Generator().manual_seed(1)
    norms = frobenius_norms(layer, record, num_probes=5000, generator=generator, sequence=1)
    torch.testing.assert_close(norms, torch.linalg.matrix_norm(truth), rtol=0.05, atol=0)


@cells
def test_lyapunov_exponents(name: str) -> None:
    """Exponents of the whole state equal those of explicit one-step Jacobians."""
    layer = CELLS[name][0](D, H)
    record = recorded(layer, 12)
    weights = {key: value.detach() for key, value in layer.named_parameters()}
    state = tuple(leaf[1:2] for leaf in leaves(record.initial))
    jacobians = []
    for input in record.inputs[:, 1:2]:

        def flat(stacked: Tensor, input: Tensor = input) -> Tensor:
            return torch.cat(CELLS[name][1](weights, input, stacked.split(H, 1)), 1)

        before = torch.cat(state, 1)
        jacobians.append(torch.autograd.functional.jacobian(flat, before).reshape(before.numel(), -1).numpy())
        state = flat(before).split(H, 1)
    drawn = torch.randn(len(jacobians[0]), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis, total = np.linalg.qr(drawn.numpy())[0], np.zeros(2)
    for jacobian in reversed(jacobians):
        basis, upper = np.linalg.qr(jacobian.T @ basis)
        total += np.log(np.abs(np.diag(upper)))
    exponents = lyapunov_exponents(layer, record, num_exponents=2, sequence=1)
    np.testing.assert_allclose(exponents, np.sort(total / 12)[::-1], rtol=1e-8)


def test_training_with_every_callback(tmp_path: Path) -> None:
    """A stack of all of them."""
    task = Adding(length=12, batch_size=4, seed=1, train_batches=3, validation_batches=1, test_batches=1)
    kinds = iter([make for make, _ in CELLS.values()])
    sizes: dict[str, int] = {"input_size": 2, "output_size": 1, "hidden_size": H, "num_layers": len(CELLS)}
    model = network(lambda *size: next(kinds)(*size), **sizes).float()
    flow, spectrum = GradientFlow(every_n_updates=1, lags=[1, 5]), JacobianSpectrum(every_n_updates=1)
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=1,
        callbacks=[flow, spectrum, ParameterNorms(every_n_updates=1)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = BPTTModule(task=task, model=model, estimator=Full(), optimizer=partial(torch.optim.SGD, lr=0.01))
    trainer.fit(module, datamodule=TaskData(module))
    assert flow.looks == spectrum.looks == module.counters.updates == 3
    assert flow.latest is not None
    assert set(flow.latest) == {f"layer{number}" for number in range(1, len(CELLS) + 1)}
    found = flow.scalars()
    for layer in flow.latest:
        quantities = ("lag_1", "lag_5", "horizon", "decay_rate", "transport", "saturation")
        assert {f"gradient_flow/{layer}/{quantity}" for quantity in quantities} <= set(found)
    assert (tmp_path / "gradient_flow.png").stat().st_size > 0


def orthogonal(size: int) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size))[0]


def flow_of(weight: Tensor, length: int = 40, num_layers: int = 1, *, dtype: torch.dtype = torch.float64) -> LayerFlow:
    """Flow of a linear network with a loss only at the last step. Its encoder is trained: inputs require grad."""
    size = len(weight)
    sizes = {"input_size": size, "embedding_size": size, "hidden_size": size, "output_size": 1}
    model = network(partial(Linear, weight=weight), **sizes, num_layers=num_layers).to(dtype)
    mask = torch.zeros(length, B, dtype=torch.bool)
    mask[-1] = True
    # Inputs that an exploding recurrence does not raise beyond the largest number, and a loss that is linear in them.
    batch = Batch(0.01 * torch.randn(length, B, size, dtype=dtype), torch.randn(length, B, 1, dtype=dtype), mask)

    def last_squared(predictions: Tensor, batch: Batch) -> Tensor:
        return (predictions * batch.targets)[-1].mean()

    with PassRecorder(model, num_sequences=B) as watch:
        (update,) = Full(length).updates(model, last_squared, batch, model.initial_state(B))
        flow = by_timestep_and_lag(model, watch.take(update.passes), factor=B, lag_factor=B, num_losses=1)[0]
    assert float(flow.by_lag["h"].min()) > 0
    return flow


def test_orthogonal_linear_recurrence_keeps_the_gradient_norm() -> None:
    flow = flow_of(orthogonal(5))
    for norms in (flow.by_timestep["h"], flow.by_lag["h"]):
        torch.testing.assert_close(norms, norms[-1:].expand(40, -1), rtol=1e-12, atol=0)
    assert decay_rate(flow.by_lag["h"].mean(1)) == pytest.approx(1, rel=1e-12)
    assert horizon(flow.by_lag["h"]).lag == 39
    assert flow.transport == pytest.approx(39 / 40)  # nothing but the last step is direct


@pytest.mark.parametrize("w", [0.5, -0.9, 1.1])
def test_scalar_linear_recurrence(w: float) -> None:
    """‖λ_{T−k}‖ = |w|ᵏ ‖λ_T‖, vanishing below 1 and exploding above."""
    flow = flow_of(torch.tensor([[w]]))
    powers = abs(w) ** torch.arange(40.0).unsqueeze(1)
    torch.testing.assert_close(flow.by_lag["h"], powers * flow.by_lag["h"][0], rtol=1e-12, atol=0)
    torch.testing.assert_close(flow.by_timestep["h"].flip(0), flow.by_lag["h"])
    assert decay_rate(flow.by_lag["h"].mean(1)) == pytest.approx(abs(w), rel=1e-12)
    expected = 39 if abs(w) > 1 else min(39, math.floor(math.log(0.01) / math.log(abs(w))))
    assert horizon(flow.by_lag["h"]).lag == expected


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_norms_over_the_whole_range_of_single_precision(factor: float) -> None:
    """Gradients from 1e-36 to 1e36: float32 holds them, but not their squares."""
    flow = flow_of(factor * torch.eye(3), length=110, dtype=torch.float32)
    for norms in (flow.by_lag["h"], flow.by_timestep["h"].flip(0)):
        powers = factor ** torch.arange(110.0).unsqueeze(1)
        torch.testing.assert_close(norms / norms[0], powers.expand(-1, B), rtol=1e-4, atol=0, check_dtype=False)
    assert decay_rate(flow.by_lag["h"].mean(1)) == pytest.approx(factor, rel=1e-6)
    assert flow.transport == pytest.approx(109 / 110)


def test_stack_of_linear_recurrences() -> None:
    """Two stacked integrators: the gradient of the last loss at lag k is (k + 1) wᵏ times that at lag 0."""
    flow = flow_of(torch.tensor([[0.9]]), num_layers=2)
    lags = torch.arange(40.0).unsqueeze(1)
    torch.testing.assert_close(flow.by_lag["h"], (lags + 1) * 0.9**lags * flow.by_lag["h"][0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("stride", [1, 4])
def test_lyapunov_exponents_of_a_diagonal_recurrence_are_its_logarithms(stride: int) -> None:
    factors = torch.tensor([0.3, -2.0, 0.9, 1.1])
    layer = Linear(4, 4, torch.diag(factors))
    found = lyapunov_exponents(layer, recorded(layer, 600), num_exponents=4, stride=stride)
    torch.testing.assert_close(found, factors.abs().log().sort(descending=True).values, rtol=0, atol=0.005)
    assert float(found.sum()) == pytest.approx(float(factors.abs().log().sum()), rel=1e-12)  # of the determinant


def test_jacobian_products_of_a_linear_recurrence_are_powers() -> None:
    weight = torch.randn(4, 4)
    layer = Linear(4, 4, weight)
    found = jacobian_products(layer, recorded(layer, 8))
    for k in range(8):
        torch.testing.assert_close(found[7 - k], torch.linalg.matrix_power(weight, k), rtol=1e-10, atol=1e-10)


def test_cell_without_parameters_has_gradients_too() -> None:
    weight = torch.randn(4, 4)
    layer = Linear(4, 4, weight)
    record, seed = recorded(layer), torch.randn(T, B, 4)
    found = layer.gradients(record, seed)
    assert found.parameters == {}
    torch.testing.assert_close(found.inputs, found.states.hidden)  # ∂h_t/∂x_t = 1


def test_frozen_cell_is_watched_too() -> None:
    """An echo state network: the recurrence is fixed and only the readout learns, under a layer that learns."""
    model = network(MinimalGatedUnit)
    for layer in (model.layers[1], model.layers[0]):
        layer.requires_grad_(False)
        batch = Batch(torch.randn(T, B, D), torch.randn(T, B, V))
        with PassRecorder(model, num_sequences=B) as watch:
            (update,) = Full(4).updates(model, squared, batch, model.initial_state(B))
            flows = by_timestep_and_lag(model, watch.take(update.passes), factor=B, lag_factor=B, num_losses=1)
        assert flows[1].by_lag["h"].shape == (T, B)
        model.layers[1].requires_grad_(True)


def test_saturation_is_that_of_the_layers_own_slope() -> None:
    """1 for a linear recurrence; 1 − h² for a cell that does not define it, whatever its gates do."""

    def mean(make: Any, size: int) -> float:
        model = SequenceModel(make, input_size=D, output_size=V, hidden_size=size)
        batch = Batch(torch.randn(T, B, D), torch.randn(T, B, V))
        (flow,) = exact_flows(model, squared, batch, model.initial_state(B), num_sequences=B)
        outputs = model(batch.inputs, model.initial_state(B))[2][0].outputs.detach()
        assert flow.saturation == pytest.approx(1.0 if make is Influence else float((1 - outputs**2).mean()))
        return flow.saturation

    assert mean(Influence, 23) == 1
    assert mean(MinimalGatedUnit, H) < 1


def test_saturation_of_a_closed_output_gate() -> None:
    """An LSTM with h = 0 counts as linear, although its gates are saturated: the texts about it say so."""
    layer = LSTM(D, H)
    with torch.no_grad():
        layer.bias_ih[3 * H :] -= 100
    record = recorded(layer)
    assert float(layer.slope(record).mean()) == pytest.approx(1)
    assert "does not show the gates" in description("gradient_flow/layer1/saturation")
