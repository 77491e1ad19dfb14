"""The textbook's manual BPTT through a whole model, against autograd of the unrolled graph."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.layer_kinds import ALL as LAYERS
from torch import Tensor, nn

from bptt.layers import GRU, LSTM
from bptt.measures import manual_gradients
from bptt.model import SequenceModel
from bptt.shapes import leaves, map_state
from bptt.tasks.base import Batch, cross_entropy

pytestmark = pytest.mark.usefixtures("float64")

B, D, V, H = 3, 4, 5, 6
kinds = pytest.mark.parametrize("kind", LAYERS)


def mean_cross_entropy(predictions: Tensor, batch: Batch) -> Tensor:
    errors = cross_entropy(predictions, batch.targets)
    return errors.mean() if batch.mask is None else errors[batch.mask].mean()


def by_autograd(
    kind: str, model: SequenceModel, batch: Batch, state: Any, masks: list[Tensor] | None = None
) -> dict[str, Tensor]:
    """−log of the target's share of exp y_t, averaged one timestep and sequence at a time."""
    features = batch.inputs if batch.inputs.is_floating_point() else oracles.one_hot(batch.inputs, D)
    initial = [tuple(leaves(layer)) for layer in state]
    predictions = oracles.run_model(kind, model, features, initial, masks or ()).predictions
    shares = predictions.exp() / predictions.exp().sum(-1, keepdim=True)
    T = len(predictions)
    terms = [
        -shares[t, b, int(batch.targets[t, b])].log()
        for t in range(T)
        for b in range(B)
        if batch.mask is None or batch.mask[t, b]
    ]
    return oracles.gradients(torch.stack(terms).mean(), model)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert float((found[name] - value).norm()) <= 1e-10 * float(value.norm()), name


@kinds
@given(
    T=st.integers(1, 8),
    num_layers=st.integers(1, 3),
    tokens=st.booleans(),
    embedding_size=st.sampled_from([None, 2, 7]),
    loss=st.sampled_from(["every step", "last step", "some"]),
    number=st.integers(0, 10**6),
)
def test_gradients_are_autograds(
    kind: str,
    T: int,
    num_layers: int,
    tokens: bool,
    embedding_size: int | None,
    loss: str,
    number: int,
) -> None:
    torch.manual_seed(number)
    model = SequenceModel(
        LAYERS[kind],
        input_size=D,
        output_size=V,
        hidden_size=H,
        num_layers=num_layers,
        embedding_size=embedding_size,
    )
    mask = torch.ones(T, B, dtype=torch.bool)
    if loss == "last step":
        mask[:-1] = False
    elif loss == "some":
        mask = torch.rand(T, B) < 0.5
        mask[0, 0] = True
    inputs = torch.randint(D, (T, B), dtype=torch.uint8) if tokens else torch.randn(T, B, D)
    batch = Batch(inputs, torch.randint(V, (T, B)), None if loss == "every step" else mask)
    state = map_state(lambda leaf: torch.randn_like(leaf).tanh(), model.initial_state(B))
    assert_same(manual_gradients(model, mean_cross_entropy, batch, state), by_autograd(kind, model, batch, state))
    assert all(parameter.grad is None for parameter in model.parameters())


@kinds
def test_dropout_between_layers(kind: str) -> None:
    """The masks of the forward pass, drawn once more in the same order, act on the way back too."""
    model = SequenceModel(LAYERS[kind], input_size=D, output_size=V, hidden_size=H, num_layers=3, dropout=0.4)
    batch = Batch(torch.randn(7, B, D), torch.randint(V, (7, B)))
    state = model.initial_state(B)
    torch.manual_seed(11)
    masks = [nn.functional.dropout(torch.ones(7, B, H), 0.4) for _ in range(2)]
    torch.manual_seed(11)
    assert_same(
        manual_gradients(model, mean_cross_entropy, batch, state), by_autograd(kind, model, batch, state, masks)
    )


def test_learnt_initial_state_is_left_out() -> None:
    model = SequenceModel(LSTM, input_size=D, output_size=V, hidden_size=H, learnt_initial_state=True)
    batch = Batch(torch.randn(7, B, D), torch.randint(V, (7, B)))
    found = manual_gradients(model, mean_cross_entropy, batch, model.initial_state(B))
    truth = by_autograd("lstm", model, batch, model.initial_state(B))
    assert_same(found, {name: value for name, value in truth.items() if not name.startswith("initial.")})


def test_identity_readout() -> None:
    """The topmost outputs are the predictions: nothing of the readout to report."""
    model = SequenceModel(GRU, input_size=D, output_size=V, hidden_size=V, num_layers=2, readout="identity")
    batch = Batch(torch.randn(7, B, D), torch.randn(7, B, V))

    def squared(predictions: Tensor, batch: Batch) -> Tensor:
        return (predictions - batch.targets).square().sum(-1).mean()

    levels = [oracles.layer_weights(model, f"layers.{level}.") for level in range(2)]
    states = oracles.unroll(oracles.gru_cell, levels, batch.inputs, [(torch.zeros(B, V),)] * 2)
    loss = oracles.squared_error(torch.stack([state[0] for state in states[-1]]), batch.targets, None)
    found = manual_gradients(model, squared, batch, model.initial_state(B))
    assert_same(found, oracles.gradients(loss, model))
