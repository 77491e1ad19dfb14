"""Both directions of time against torch's bidirectional modules, run on each sequence alone, and against autograd."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.gradients import gradient_at
from support.layer_kinds import ALL as KINDS
from torch import Tensor, nn

from bptt.layers import Bidirectional, Record
from bptt.layers.reset import Reset
from bptt.measures import manual_gradients, per_sequence_gradients
from bptt.model import SequenceModel
from bptt.shapes import leaves, map_state
from bptt.tasks.base import Batch, squared_error

pytestmark = pytest.mark.usefixtures("float64")

D, H, V = 3, 4, 2
kinds = pytest.mark.parametrize("kind", KINDS)
TORCH: dict[str, Any] = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def make(kind: str, **options: Any) -> SequenceModel:
    return SequenceModel(KINDS[kind], input_size=D, output_size=V, hidden_size=H, bidirectional=True, **options)


def of_torch(kind: str, model: SequenceModel) -> nn.RNNBase:
    """torch's own module with the model's weights."""
    module: nn.RNNBase = TORCH[kind](D, H, len(model.layers), bidirectional=True)
    weights = {
        name.replace("_l0", f"_l{level}"): weight
        for level, layer in enumerate(model.layers)
        if isinstance(layer, Bidirectional)
        for name, weight in layer.torch_state_dict().items()
    }
    module.load_state_dict(weights)
    return module


def random_resets(timesteps: int, batch_size: int) -> Tensor:
    return torch.rand(timesteps, batch_size) < 0.3


def pieces(resets: Tensor) -> list[tuple[int, int, int]]:
    """The sequences (column, first timestep, last + 1) of a batch."""
    return [
        (column, first, last)
        for column, mask in enumerate(resets.T)
        for first, last in pairwise(sorted({0, len(mask), *mask.nonzero().flatten().tolist()}))
    ]


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("summary", [False, True])
@given(
    timesteps=st.integers(1, 8), batch_size=st.integers(1, 3), num_layers=st.integers(1, 3), seed=st.integers(0, 999)
)
def test_sequences_run_alone_through_torchs_module(
    kind: str, summary: bool, timesteps: int, batch_size: int, num_layers: int, seed: int
) -> None:
    """Predictions and gradients. With a summary, the readout's inputs at the end are torch's final states."""
    torch.manual_seed(seed)
    model = make(kind, num_layers=num_layers)
    if summary:
        model.summarise()
    module, readout = of_torch(kind, model), nn.Linear(2 * H, V)
    readout.load_state_dict(model.readout.state_dict())
    inputs, resets = torch.randn(timesteps, batch_size, D), random_resets(timesteps, batch_size)
    got, _, _ = model(inputs, model.initial_state(batch_size), resets)
    objective = expected_objective = torch.zeros(())
    for column, first, last in pieces(resets):
        outputs, state = module(inputs[first:last, column : column + 1])
        predictions, own = readout(outputs)[:, 0], got[first:last, column]
        if summary:
            ahead, reverse = leaves(state)[0][-2:]
            predictions, own = readout(torch.cat([ahead, reverse], -1)), own[-1:]
        torch.testing.assert_close(own, predictions, rtol=1e-10, atol=1e-12)
        objective, expected_objective = objective + own.square().sum(), expected_objective + predictions.square().sum()
    objective.backward()
    expected_objective.backward()
    for level, layer in enumerate(model.layers):
        for name, weight in layer.named_parameters():
            own_name = name.replace("_l0", f"_l{level}").removeprefix("ahead.kernel.")
            if own_name.startswith("reverse.kernel."):
                own_name = own_name.removeprefix("reverse.kernel.") + "_reverse"
            expected = gradient_at(module.get_parameter(own_name))
            torch.testing.assert_close(gradient_at(weight), expected, rtol=1e-10, atol=1e-12)


@kinds
@pytest.mark.parametrize("summary", [False, True])
@pytest.mark.parametrize("timesteps", [1, 6])
def test_adjoint_of_each_direction(kind: str, summary: bool, timesteps: int) -> None:
    """dL/d(state of t), dL/d(initial state) and dL/dx_t of graphs that are unrolled cell by cell in each direction."""
    layer = Bidirectional(KINDS[kind], D, H, summary=summary)
    inputs, seed = torch.randn(timesteps, 2, D).requires_grad_(), torch.randn(timesteps, 2, 2 * H)
    initial: Any = map_state(lambda leaf: torch.randn_like(leaf).tanh(), layer.initial_state(2))
    with torch.no_grad():
        outputs, final = layer(inputs, initial)
    graphs = []
    for direction, given_inputs, start in zip(layer.directions, (inputs, inputs.flip(0)), initial):
        start = tuple(leaf.clone().requires_grad_() for leaf in leaves(start))
        (states,) = oracles.unroll(oracles.CELLS[kind], [oracles.layer_weights(direction)], given_inputs, [start])
        graphs.append((states, start))
    ahead, reverse = (torch.stack([state[0] for state in states]) for states, _ in graphs)
    reverse = reverse[-1:].expand_as(reverse) if summary else reverse.flip(0)
    expected_outputs = torch.cat([ahead, reverse], -1)
    torch.testing.assert_close(outputs, expected_outputs, rtol=1e-10, atol=1e-12)
    at_final = map_state(torch.randn_like, final)
    ends = [leaf for states, _ in graphs for leaf in states[-1]]
    objective = (expected_outputs * seed).sum() + sum((a * b).sum() for a, b in zip(ends, leaves(at_final)))
    wanted = [leaf for states, start in graphs for leaf in (*[leaf for state in states for leaf in state], *start)]
    at_inputs, *found = torch.autograd.grad(objective, [inputs, *wanted])

    own = layer.gradients(Record(inputs.detach(), initial, outputs, final), seed, at_final)
    torch.testing.assert_close(own.inputs, at_inputs, rtol=1e-10, atol=1e-12)
    remaining = iter(found)
    for index, (states, _) in enumerate(graphs):
        by_state = [[next(remaining) for _ in state] for state in states]
        for number, leaf in enumerate(leaves(own.states.states[index])):
            expected = torch.stack([each[number] for each in by_state])
            torch.testing.assert_close(leaf, expected if index == 0 else expected.flip(0), rtol=1e-10, atol=1e-12)
        for leaf in leaves(own.states.initial[index]):
            torch.testing.assert_close(leaf, next(remaining), rtol=1e-10, atol=1e-12)
    states, _, _ = adjoint = layer.adjoint(Record(inputs.detach(), initial, outputs, final), seed, at_final)
    assert all(map(torch.equal, leaves(states), leaves(own.states.states)))
    assert torch.equal(adjoint.hidden, leaves(own.states.states[0])[0])


@kinds
@pytest.mark.parametrize("summary", [False, True])
def test_manual_gradients_of_a_stack_with_resets_and_dropout(kind: str, summary: bool) -> None:
    """Against autograd of the same pass; also the sum of the gradients of every sequence."""
    weight_dropout = 0.3 if kind in ("elman", "irnn", "gru", "lstm") else 0.0
    model = make(kind, num_layers=2, embedding_size=5, dropout=0.3, weight_dropout=weight_dropout)
    if summary:
        model.summarise()
    resets, mask = random_resets(7, 3), torch.rand(7, 3) < 0.7
    batch = Batch(torch.randn(7, 3, D), torch.randn(7, 3, V), mask, resets)

    def loss(predictions: Tensor, batch: Batch) -> Tensor:
        return squared_error(predictions, batch.targets)[mask].mean()

    state = model.initial_state(3)
    torch.manual_seed(0)
    expected = oracles.gradients(loss(model(batch.inputs, state, resets)[0], batch), model)
    for method in (manual_gradients, per_sequence_gradients):
        torch.manual_seed(0)
        found: Any = method(model, loss, batch, state)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            own = found[name] if method is manual_gradients else found[name].sum(0)
            torch.testing.assert_close(own, value, rtol=1e-10, atol=1e-12)


def test_learnt_initial_states_of_pieces() -> None:
    """Both directions collect gradient at every piece, as `StateGradients.resets` has it."""
    layer = Bidirectional(KINDS["lstm"], D, H)
    state: Any = map_state(lambda leaf: torch.randn_like(leaf).requires_grad_(), layer.initial_state(2))
    began: Any = map_state(lambda leaf: torch.randn_like(leaf).requires_grad_(), layer.initial_state(2))
    reset = Reset.at(torch.tensor([[0, 0], [1, 0], [0, 0], [0, 1], [1, 0]], dtype=torch.bool), began)
    inputs, seed = torch.randn(5, 2, D), torch.randn(5, 2, 2 * H)
    outputs, final = layer.forward_with_resets(inputs, state, reset)
    expected = torch.autograd.grad((outputs * seed).sum(), leaves(began))
    found = layer.adjoint(Record(inputs, state, outputs, final, reset=reset), seed).resets
    for own, value in zip(leaves(found), expected, strict=True):
        torch.testing.assert_close(own, value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("block", ["glu", "mlp", "norm", "residual", "norm_residual"])
def test_residual_blocks_around_both_directions(block: Any) -> None:
    model = make("gru", num_layers=2, block=block)
    inputs = torch.randn(4, 2, D)
    predictions, _, records = model(inputs, model.initial_state(2))
    direction = torch.randn_like(predictions)
    layers = model.gradients(records, direction @ model.readout.get_parameter("weight"))
    expected = oracles.gradients((predictions * direction).sum(), model)
    for index, layer in enumerate(layers):
        for name, gradient in layer.parameters.items():
            torch.testing.assert_close(gradient, expected[f"layers.{index}.{name}"], rtol=1e-10, atol=1e-12)


def test_an_identity_readout_has_twice_the_hidden_size() -> None:
    with pytest.raises(ValueError, match="twice hidden_size must be the output size 2 for an identity readout, got 8"):
        make("lstm", readout="identity")


def test_single_timesteps_are_refused() -> None:
    model = make("lstm")
    with pytest.raises(ValueError, match=r"one direction, got a bidirectional one.*; use model\.bidirectional=false"):
        model.step(torch.randn(2, D), model.initial_state(2))
