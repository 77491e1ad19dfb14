"""Dropout at inputs, between layers, before the readout and of recurrent weights: values, gradients, adjoints."""

import copy
from typing import Any

import pytest
import torch
from support import oracles
from support.fixed_batches import random_batch
from support.gradients import gradient_at
from support.masked_batches import KINDS, loss
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from bptt.estimators import Full
from bptt.layers import Layer, Record
from bptt.measures import flossing, manual_gradients, per_sequence_gradients
from bptt.measures.passes import PassRecorder
from bptt.model import DROPOUTS, SequenceModel
from bptt.shapes import leaves
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
EVERY: dict[str, Any] = {"dropout": 0.3, "input_dropout": 0.2, "output_dropout": 0.4, "weight_dropout": 0.5}
T, B, H = 7, 3, 5


class Cell(Layer):
    """A cell of a user's own: h_t = tanh(x_t W + U h_{t−1})."""

    recurrent = ("again.weight",)

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.enter = nn.Linear(input_size, hidden_size)
        self.again = nn.Linear(hidden_size, hidden_size, bias=False)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.again.weight.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Any) -> Tensor:
        return torch.tanh(self.enter(input) + self.again(state))


LAYERS: dict[str, Any] = {**{kind: KINDS[kind] for kind in ("elman", "gru", "lstm")}, "cell": Cell}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def make(kind: str, **options: Any) -> SequenceModel:
    settings: dict[str, Any] = {**EVERY, "num_layers": 2, "embedding_size": 4, **options}
    return SequenceModel(LAYERS[kind], input_size=2, output_size=2, hidden_size=H, **settings)


def by_hand(model: SequenceModel, batch: Batch, records: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Predictions and gradients of copies of the layers whose weights were multiplied by the masks beforehand."""
    assert model.encoder is not None
    layers, hidden = [], model.encoder(batch.inputs) * records[0].input_mask
    for layer, record in zip(model.levels, records):
        own = copy.deepcopy(layer)
        for name, mask in record.weight_masks.items():
            own.get_parameter(name).data.mul_(mask)
        outputs, _ = own(hidden, own.initial_state(B))
        hidden = outputs * record.mask
        layers.append(own)
    predictions = model.readout(hidden)
    model.zero_grad()
    loss(predictions, batch).backward()
    found = oracles.grads(model)
    for level, (layer, record) in enumerate(zip(layers, records)):
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None
            found[f"layers.{level}.{name}"] = parameter.grad * record.weight_masks.get(name, 1)
    return predictions, found


@every_layer
def test_values_and_gradients(kind: str) -> None:
    """Values and gradients agree for autograd, for manual BPTT through the stack, and per sequence."""
    model, batch = make(kind), random_batch(T, B)
    torch.manual_seed(3)
    predictions, _, records = model(batch.inputs, model.initial_state(B))
    expected, gradients = by_hand(model, batch, records)
    torch.testing.assert_close(predictions, expected, rtol=1e-10, atol=1e-12)
    got = oracles.gradients(loss(predictions, batch), model)
    assert oracles.relative_error(got, gradients) < 1e-10
    for measure in (manual_gradients, per_sequence_gradients):
        torch.manual_seed(3)
        found = measure(model, loss, batch, model.initial_state(B))
        if measure is per_sequence_gradients:
            found = {name: each.sum(0) for name, each in found.items()}
        assert oracles.relative_error(found, gradients) < 1e-10


@every_layer
def test_the_adjoint_is_that_of_the_dropped_weights(kind: str) -> None:
    """The adjoint from training's backward pass, or from a later recursion, equals autograd's step by step."""
    model, batch = make(kind, num_layers=1), random_batch(T, B)
    with PassRecorder(model, num_sequences=B) as recorder:
        predictions, _, (record,) = model(batch.inputs, model.initial_state(B))
        loss(predictions, batch).backward()
        (seen,) = recorder.take([(0, T)])
    (own,) = model.levels
    layer = copy.deepcopy(own)
    layer.get_parameter(layer.recurrent[0]).data.mul_(record.weight_masks[layer.recurrent[0]])
    state, history, outputs = layer.initial_state(B), [], []
    for input in record.inputs.detach():
        state = layer.step(input, state)
        for leaf in leaves(state):
            leaf.retain_grad()
        history.append(leaves(state))
        outputs.append(history[-1][0])
    loss(model.readout(torch.stack(outputs) * record.mask), batch).backward()
    for found in (seen.adjoint(0, own), own.adjoint(seen.records[0], seen.direct[0])):
        for at, leaf in enumerate(leaves(found.states)):
            expected = torch.stack([gradient_at(states[at]) for states in history])
            torch.testing.assert_close(leaf, expected, rtol=1e-9, atol=1e-12)


def test_one_mask_for_each_pass_and_new_ones_for_the_next() -> None:
    model, batch = make("lstm"), random_batch(T, B)
    passes = [model(batch.inputs, model.initial_state(B))[2] for _ in range(2)]
    (name,) = passes[0][0].weight_masks
    masks = [record.weight_masks[name] for records in passes for record in records]
    assert all(set(mask.unique().tolist()) == {0.0, 2.0} for mask in masks)
    assert all(not torch.equal(masks[0], other) for other in masks[1:])
    locked = make("lstm", locked_dropout=True)(batch.inputs, model.initial_state(B))[2]
    for mask in (locked[0].mask, locked[1].mask, locked[0].input_mask):
        assert torch.equal(mask, mask[:1].expand_as(mask))
        assert mask.unique().numel() == 2


def test_segments_repeat_the_masks() -> None:
    """The exact gradient in segments is that of a graph over the same segments, with the same draws."""
    model, batch = make("gru"), random_batch(T, B)
    torch.manual_seed(4)
    list(Full(3).updates(model, loss, batch, model.initial_state(B)))
    got = oracles.grads(model)
    torch.manual_seed(4)
    state, total = model.initial_state(B), torch.zeros(())
    for _, part in batch.split(3):
        predictions, state, _ = model(part.inputs, state)
        total = total + loss(predictions, part) * part.num_timesteps / T
    assert oracles.relative_error(got, oracles.gradients(total, model)) < 1e-10


def test_none_in_evaluation_or_for_measurements() -> None:
    model, inputs = make("lstm"), torch.randn(T, B, 2)
    before = model.eval()(inputs, model.initial_state(B))[0]
    torch.testing.assert_close(model.train().without_dropout()(inputs, model.initial_state(B))[0], before)
    assert set(model.dropouts) == set(DROPOUTS)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("mingru", {"weight_dropout": 0.1}, "weight_dropout must be 0 for a layer without recurrent weight matrices"),
        ("lstm", {"block": "glu", "output_dropout": 0.1}, r"output_dropout must be 0 with model\.block"),
        ("lstm", {"block": "residual", "embedding_size": 3}, "embedding_size must be null or hidden_size, 5, with"),
        ("lstm", {"weight_dropout": 1.0}, r"weight_dropout must be a number in \[0, 1\), got 1.0"),
    ],
)
def test_refusals(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceModel(KINDS[kind], input_size=2, output_size=2, hidden_size=5, **options)


class Counting(Layer):
    """A cell that counts its timesteps in a buffer, and has a parametrized recurrent weight."""

    recurrent = ("weight.weight",)
    seen: Tensor

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight = nn.Linear(hidden_size, hidden_size)
        self.inputs = weight_norm(nn.Linear(input_size, hidden_size))
        self.register_buffer("seen", torch.zeros(()))

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, self.hidden_size)

    def forward(self, inputs: Tensor, state: Any) -> Any:
        self.seen = self.seen + len(inputs)
        return super().forward(inputs, state)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(self.inputs(input) + self.weight(state))


def test_a_forward_pass_may_assign_to_a_buffer() -> None:
    model = SequenceModel(Counting, input_size=2, output_size=2, hidden_size=3, weight_dropout=0.5)
    model(torch.randn(5, 2, 2), model.initial_state(2))
    assert dict(model.named_buffers())["layers.0.seen"] == 5


def test_parametrized_weights_in_half_precision_are_measured() -> None:
    layer = Counting(2, 3).bfloat16()
    inputs, initial, outputs = (torch.zeros(size).bfloat16() for size in ((5, 1, 2), (1, 3), (5, 1, 3)))
    record = Record(inputs + 1, initial, outputs, None)
    flossing(layer, record, num_exponents=2).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.parameters())
