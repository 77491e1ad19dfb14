"""A user's own cell implements `step` and `initial_state`; the base class provides forward pass and adjoint."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.gradients import gradient_at
from support.layer_kinds import ALL
from torch import Tensor, nn

from bptt.layers import LSTM, Adapter, Layer, Record
from bptt.layers.base import like
from bptt.layers.checks import check_layer
from bptt.layers.diagonal import DiagonalLayer
from bptt.shapes import leaves

pytestmark = pytest.mark.usefixtures("float64")


class LeakyIntegrator(Layer):
    """h_t = (1 − a) h_{t-1} + a tanh(W x_t + U h_{t-1}), a in (0, 1) for every unit."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.drive = nn.Linear(input_size + hidden_size, hidden_size)
        self.leak = nn.Parameter(torch.rand(hidden_size))

    def initial_state(self, batch_size: int) -> Tensor:
        return self.leak.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return (1 - self.leak) * state + self.leak * torch.tanh(self.drive(torch.cat([input, state], -1)))


class TraceState(NamedTuple):
    """Output and two slower traces in a nested tuple."""

    h: Tensor
    slow: tuple[Tensor, Tensor]


class Traces(Layer):
    """h_t = tanh(W [x_t, h_{t-1}, p_{t-1}]), p_t = .9 p_{t-1} + h_t, q_t = .5 q_{t-1} + p_{t-1} ∘ h_t.

    The output does not depend on q, so only a gradient at the final state reaches it.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.drive = nn.Linear(input_size + 2 * hidden_size, hidden_size)

    def initial_state(self, batch_size: int) -> TraceState:
        zeros = self.drive.weight.new_zeros(batch_size, self.hidden_size)
        return TraceState(zeros, (zeros, zeros))

    def step(self, input: Tensor, state: TraceState) -> TraceState:
        h, (p, q) = state
        h = torch.tanh(self.drive(torch.cat([input, h, p], -1)))
        return TraceState(h, (0.9 * p + h, 0.5 * q + p * h))


def unrolled(layer: LeakyIntegrator | Traces, inputs: Tensor, state: Any) -> list[list[Tensor]]:
    """The tensors of the state after every timestep, by formulas written out here; each retains its gradient."""
    W, b = layer.drive.weight, layer.drive.bias
    now, history = leaves(state), []
    for x in inputs:
        if isinstance(layer, LeakyIntegrator):
            (h,) = now
            after = [h + layer.leak * (torch.tanh(torch.cat([x, h], 1) @ W.T + b) - h)]
        else:
            h, p, q = now
            out = torch.tanh(torch.cat([x, h, p], 1) @ W.T + b)
            after = [out, 0.9 * p + out, q / 2 + p * out]
        now = after
        for leaf in now:
            leaf.retain_grad()
        history.append(now)
    return history


cells = pytest.mark.parametrize("cell", [LeakyIntegrator, Traces])
shapes = given(timesteps=st.integers(1, 8), batch_size=st.integers(1, 3), hidden_size=st.integers(1, 4))


def random_state(layer: Layer, batch_size: int) -> tuple[Any, list[Tensor]]:
    """A random state of a layer, and its tensors, which require grad."""
    zeros = layer.initial_state(batch_size)
    tensors = [torch.randn_like(leaf).requires_grad_() for leaf in leaves(zeros)]
    return like(zeros, tensors), tensors


@cells
@shapes
def test_forward_is_a_loop_of_steps(
    cell: type[LeakyIntegrator | Traces], timesteps: int, batch_size: int, hidden_size: int
) -> None:
    layer, inputs = cell(2, hidden_size), torch.randn(timesteps, batch_size, 2)
    state, parts = random_state(layer, batch_size)
    outputs, final = layer(inputs, state)
    history = unrolled(layer, inputs, state)
    expected = [torch.stack([now[0] for now in history]), *history[-1]]
    ends = [outputs, *leaves(final)]
    torch.testing.assert_close(ends, expected, rtol=1e-12, atol=1e-13)
    assert type(final) is type(state)
    cotangents = [torch.randn_like(end) for end in ends]
    sources = [*parts, *layer.parameters()]
    got = torch.autograd.grad(ends, sources, cotangents)
    torch.testing.assert_close(got, torch.autograd.grad(expected, sources, cotangents), rtol=1e-10, atol=1e-12)


@cells
@shapes
def test_adjoint_is_autograds_total_gradient(
    cell: type[LeakyIntegrator | Traces], timesteps: int, batch_size: int, hidden_size: int
) -> None:
    """dL/d(each tensor of the state), from seeds at the outputs and a final gradient."""
    layer, inputs = cell(2, hidden_size), torch.randn(timesteps, batch_size, 2)
    state, parts = random_state(layer, batch_size)
    seed = torch.randn(timesteps, batch_size, hidden_size)
    final, arriving = random_state(layer, batch_size)
    history = unrolled(layer, inputs, state)
    objective = sum((now[0] * direct).sum() for now, direct in zip(history, seed))
    (objective + sum((leaf * grad).sum() for leaf, grad in zip(history[-1], arriving))).backward()

    outputs, last = layer(inputs, state)
    found = layer.adjoint(Record(inputs, state, outputs, last), seed, final)
    for index, total in enumerate(leaves(found.states)):
        expected = torch.stack([gradient_at(now[index]) for now in history])
        torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(leaves(found.initial), [leaf.grad for leaf in parts], rtol=1e-10, atol=1e-12)
    assert type(found.states) is type(found.initial) is type(state)


@cells
def test_adjoint_without_final_gradient_leaves_an_unused_trace_at_zero(cell: type[Layer]) -> None:
    layer, inputs = cell(2, 3), torch.randn(5, 2, 2)
    outputs, last = layer(inputs, layer.initial_state(2))
    found = layer.adjoint(Record(inputs, layer.initial_state(2), outputs, last), torch.randn(5, 2, 3))
    first, *rest = leaves(found.states)
    assert first.abs().min() > 0
    assert not any(leaf.any() for leaf in rest[1:])


@pytest.mark.parametrize("generic", [False, True])
def test_outputs_and_final_state_take_their_gradients_apart(generic: bool) -> None:
    """h_T is both the last output and the final state, but as two tensors, as in torch's kernels.

    So gradients from the readout and gradients from later timesteps stay separate.
    """

    class PlainLSTM(LSTM):
        forward = Layer.forward

    layer = (PlainLSTM if generic else LSTM)(3, 4)
    outputs, final = layer(torch.randn(5, 2, 3), layer.initial_state(2))
    outputs.retain_grad()
    final.h.retain_grad()
    (2 * outputs.sum() + 5 * final.h.sum() + final.c.sum()).backward()
    assert torch.equal(outputs.grad, torch.full((5, 2, 4), 2.0))
    assert torch.equal(final.h.grad, torch.full((2, 4), 5.0))


def test_a_layer_without_step_cannot_be_made() -> None:
    class Nothing(Layer):
        def initial_state(self, batch_size: int) -> Tensor:
            return torch.zeros(batch_size, self.hidden_size)

    with pytest.raises(TypeError, match="step"):
        Nothing(1, 1)  # type: ignore[abstract]  # what is tested


class Faulty(LeakyIntegrator):
    """A leaky integrator of 4 units with a beginner's mistake in one of its methods."""

    def __init__(self, mistake: str):
        super().__init__(3, 4)
        self.mistake = mistake

    def initial_state(self, batch_size: int) -> Any:
        state = super().initial_state(batch_size)
        if self.mistake == "two states in a list":
            return [state, state]
        if self.mistake == "a number a sequence":
            return state, state[:, 0]
        if self.mistake == "a matrix":
            return state, state.unsqueeze(1) * state.unsqueeze(2)
        odd = {"one row": state[:1], "no state": None, "complex": state.to(torch.complex64)}
        return odd.get(self.mistake, state)

    def step(self, input: Tensor, state: Tensor) -> Any:
        if self.mistake == "in place":
            state.mul_(0.9)
        after = super().step(input.T if self.mistake == "transposed" else input, state)
        if self.mistake == "no return":
            return None
        if self.mistake == "output and state":
            return after, after
        return after + torch.randn(()) if self.mistake == "random" else after

    def forward(self, inputs: Tensor, state: Any) -> Any:
        outputs, final = super().forward(inputs, state)
        if self.mistake == "outputs alone":
            return outputs
        return (outputs + 0.1, final) if self.mistake == "other forward" else (outputs, final)


@pytest.mark.parametrize(
    ("mistake", "message"),
    {
        "one row": r"initial_state\(2\) must be .*, the first one h \(2, 4\), got \(1, 4\)$",
        "two states in a list": r"initial_state\(2\) must be .*, or a tuple .*, got \[\(2, 4\), \(2, 4\)\]$",
        "a number a sequence": r"initial_state\(2\) must be .*\(2, ·\), .*, got \(\(2, 4\), \(2,\)\)$",
        "a matrix": r"initial_state\(2\) must be tensors \(2, ·\) .*, got \(\(2, 4\), \(2, 4, 4\)\); flatten a matrix",
        "complex": r"initial_state\(2\) must be real tensors, .*; keep the real and the imaginary part as two tensors",
        "no state": r"initial_state\(2\) must be .*, got None$",
        "no return": r"step\(input, state\) must be a state like the one before, \(2, 4\), got None$",
        "output and state": r"step\(input, state\) must be .*, \(2, 4\), got \(\(2, 4\), \(2, 4\)\)$",
        "transposed": r"step\(input, state\) must accept \(2, 3\), \(2, 4\), got RuntimeError: Sizes",
        "in place": r"step\(input, state\) must leave its arguments as they are, .*; change none in place$",
        "random": r"step\(input, state\) must be the same when it is called again, .*model\.dropout",
        "outputs alone": r"forward\(inputs, state\) must be .*, \(\(2, 2, 4\), \(2, 4\)\), got \(2, 2, 4\)$",
        "other forward": r"forward\(inputs, state\) must be the states of Faulty\.step, one by one, got other",
    }.items(),
)
def test_a_mistake_in_a_method_is_named(mistake: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Faulty\\.{message}"):
        check_layer(Faulty(mistake))


@pytest.mark.parametrize("kind", [LeakyIntegrator, Traces, *ALL.values()])
def test_layers_pass_the_check_whatever_their_weights(kind: Callable[[int, int], Layer]) -> None:
    layer = kind(3, 6)
    check_layer(layer)
    for scale in (1e30, float("inf"), float("nan")):
        for parameter in layer.parameters():
            torch.nn.init.constant_(parameter, scale)
        check_layer(layer)


class Counted(LeakyIntegrator):
    """Counts timesteps in its state and in a buffer, normalises its inputs, and is random in training alone."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.norm = nn.BatchNorm1d(input_size)
        self.register_buffer("calls", torch.zeros(()))
        self.calls: Tensor

    def initial_state(self, batch_size: int) -> Any:
        return super().initial_state(batch_size), torch.zeros(batch_size, 1, dtype=torch.long)

    def step(self, input: Tensor, state: Any) -> Any:
        self.calls += 1
        after = super().step(self.norm(input), state[0])
        return (after + torch.randn(()) if self.training else after), state[1] + 1


def test_the_check_leaves_no_trace_in_a_layer_that_is_random_in_training() -> None:
    layer = Counted(3, 4)
    before, random = {name: each.clone() for name, each in layer.state_dict().items()}, torch.get_rng_state()
    check_layer(layer)
    assert layer.training
    assert all(torch.equal(each, before[name]) for name, each in layer.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_an_adapter_needs_its_forward_alone() -> None:
    """Its state may begin with another tensor than the output."""
    initial = lambda size: (torch.zeros(2, size, 4), torch.zeros(2, size, 4))
    check_layer(Adapter(nn.LSTM(3, 4, num_layers=2), 3, 4, initial=initial, batch_dim=1))
    with pytest.raises(ValueError, match=r"^Adapter\.forward\(inputs, state\) must be outputs and .*\(2, 2, 5\)"):
        check_layer(Adapter(nn.LSTM(3, 4, num_layers=2), 3, 5, initial=initial, batch_dim=1))


class Decays(DiagonalLayer):
    """A diagonal recurrence whose author has one form of inputs in mind."""

    form: Any = None

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.linear = nn.Linear(input_size, hidden_size)
        self.decay = nn.Parameter(torch.full((hidden_size,), 0.5))

    def coefficients(self, inputs: Tensor) -> Any:
        b = self.linear(inputs)
        same = self.decay.expand_as(b)
        return {"constant": (self.decay, b), "same": (same, b), "list": [same, b], "one": b}.get(
            self.form, (self.decay.expand(*inputs.shape[:2], -1), b)
        )


@pytest.mark.parametrize(
    ("form", "right"), [("constant", True), ("same", True), ("list", True), ("timesteps", False), ("one", False)]
)
def test_coefficients_for_all_timesteps_and_for_one(form: str, right: bool) -> None:
    layer = Decays(3, 4)
    layer.form = form
    if right:
        check_layer(layer)
        return
    message = r"Decays\.coefficients\(inputs\) must be a and b \(.*4\) for inputs .*one \(B, D\)"
    with pytest.raises(ValueError, match=message):
        check_layer(layer)
