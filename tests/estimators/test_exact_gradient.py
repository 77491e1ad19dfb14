"""Estimators that do not truncate give the gradient that autograd gives of one unrolled graph."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.masked_batches import KINDS, TwoSpeeds, loss, make_model, masked_batch, masks

from bptt.estimators import Chunked, Estimator, Full, Update
from bptt.model import SequenceModel
from bptt.shapes import leaves, map_state
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", KINDS)
depths = pytest.mark.parametrize("num_layers", [1, 2, 3])
lengths, batch_sizes = st.integers(1, 13), st.integers(1, 3)


def only_update(estimator: Estimator, model: SequenceModel, batch: Batch, state: Any, *backward: Any) -> Update:
    model.zero_grad()
    (update,) = estimator.updates(model, loss, batch, state, *backward)
    return update


def assert_exact(kind: str, model: SequenceModel, batch: Batch, state: Any, update: Update) -> None:
    """Gradient, loss, weight, extent and final state of an update over a whole batch."""
    initial = None if state is None else [tuple(leaves(part)) for part in state]
    unrolled = oracles.run_model(kind, model, batch.inputs, initial)
    error = oracles.squared_error(unrolled.predictions, batch.targets, batch.mask)
    assert oracles.relative_error(oracles.grads(model), oracles.gradients(error, model)) < 1e-10
    torch.testing.assert_close(update.loss, error.detach(), rtol=1e-10, atol=0)
    everywhere = batch.num_timesteps * batch.batch_size
    assert update.weight == (everywhere if batch.mask is None else int(batch.mask.sum()))
    assert (update.start, update.stop) == (0, batch.num_timesteps)
    expected = [leaf.detach() for layer in unrolled.final for leaf in layer]
    torch.testing.assert_close(leaves(update.state), expected, rtol=1e-10, atol=1e-12)
    assert not any(leaf.requires_grad for leaf in [update.loss, *leaves(update.state)])


@kinds
@depths
@given(
    timesteps=lengths,
    batch_size=batch_sizes,
    segment_size=st.one_of(st.none(), st.integers(1, 14)),
    pattern=masks,
    learnt=st.booleans(),
)
def test_full_in_segments(
    kind: str, num_layers: int, timesteps: int, batch_size: int, segment_size: int | None, pattern: str, learnt: bool
) -> None:
    model = make_model(kind, num_layers, learnt=learnt)
    batch = masked_batch(pattern, timesteps, batch_size, segment_size or 4)
    update = only_update(Full(segment_size), model, batch, model.initial_state(batch_size))
    assert_exact(kind, model, batch, None, update)


@kinds
@depths
@given(
    timesteps=lengths,
    batch_size=batch_sizes,
    beyond=st.integers(0, 3),
    pattern=masks,
    learnt=st.booleans(),
    update=st.sampled_from(["chunk", "sequence"]),
)
def test_chunks_as_long_as_the_batch(
    kind: str, num_layers: int, timesteps: int, batch_size: int, beyond: int, pattern: str, learnt: bool, update: Any
) -> None:
    model = make_model(kind, num_layers, learnt=learnt)
    batch = masked_batch(pattern, timesteps, batch_size, 3)
    estimator = Chunked(timesteps + beyond, update=update)
    assert_exact(kind, model, batch, None, only_update(estimator, model, batch, model.initial_state(batch_size)))


@kinds
@pytest.mark.parametrize("segment_size", [1, 3, 4, 11, 30])
def test_full_from_a_carried_state(kind: str, segment_size: int) -> None:
    model, batch = make_model(kind, 2), masked_batch("random", 11, 3, 4)
    state = map_state(torch.randn_like, model.initial_state(3))
    assert_exact(kind, model, batch, state, only_update(Full(segment_size), model, batch, state))


@pytest.mark.parametrize("segment_size", [1, 7])
def test_full_through_many_segments(segment_size: int) -> None:
    """λ is handed on a hundred times, without an error that grows."""
    model, batch = make_model("lstm", 2), masked_batch("last", 100, 2, segment_size)
    with torch.no_grad():  # a gate that keeps, so that much of the gradient goes all the way
        for name, parameter in model.named_parameters():
            if "bias" in name and "kernel" in name:
                parameter[4:8] = 2.0
    update = only_update(Full(segment_size), model, batch, model.initial_state(2))
    assert_exact("lstm", model, batch, None, update)


@kinds
@pytest.mark.parametrize("pattern", ["none", "last", "holes", "early"])
def test_loss_scale_does_not_compound_over_segments(kind: str, pattern: str) -> None:
    """`backward` may scale the loss, as in float16 training. A power of two scales the gradient without rounding."""
    model, batch = make_model(kind, 2, learnt=True), masked_batch(pattern, 10, 2, 2)
    plain = only_update(Full(2), model, batch, model.initial_state(2))
    expected = {name: 1024 * gradient for name, gradient in oracles.grads(model).items()}
    scaled = only_update(Full(2), model, batch, model.initial_state(2), lambda loss: (1024 * loss).backward())
    got = oracles.grads(model)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert torch.equal(scaled.loss, plain.loss)


def test_full_gradient_adds_to_what_is_there() -> None:
    """Gradients accumulate in `.grad`, as with `backward`."""
    model, batch = make_model("gru"), masked_batch("random", 9, 2, 3)
    only_update(Full(3), model, batch, model.initial_state(2))
    once = oracles.grads(model)
    list(Full(3).updates(model, loss, batch, model.initial_state(2)))
    assert oracles.relative_error(oracles.grads(model), {name: 2 * value for name, value in once.items()}) < 1e-14


def test_full_with_a_cell_of_ones_own() -> None:
    """The estimator depends neither on torch's kernels nor on the structure of the state."""

    model = SequenceModel(TwoSpeeds, input_size=2, output_size=2, hidden_size=3)
    batch = masked_batch("random", 10, 2, 3)
    update = only_update(Full(3), model, batch, model.initial_state(2))
    weight, v, bias = map(model.get_parameter, ("layers.0.weight", "readout.weight", "readout.bias"))
    p, predictions = torch.zeros(2, 3), []
    for x in batch.inputs:
        h = torch.tanh(x @ weight + p)
        p = (p + h) / 2
        predictions.append(h @ v.T + bias)
    error = oracles.squared_error(torch.stack(predictions), batch.targets, batch.mask)
    assert oracles.relative_error(oracles.grads(model), oracles.gradients(error, model)) < 1e-10
    last = leaves(update.state)
    torch.testing.assert_close(last[1], p.detach())
    assert torch.equal(last[2], torch.full((2, 3), 10.0))
