"""Truncated BPTT against a loop that detaches by hand."""

import copy
from typing import Any

import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masked import KINDS, loss, make_model, masked_batch, masks

from bptt.estimators import Chunked
from bptt.shapes import leaves

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", KINDS)
cases = given(
    num_layers=st.integers(1, 3),
    timesteps=st.integers(1, 13),
    batch_size=st.integers(1, 3),
    chunk_size=st.integers(1, 14),
    pattern=masks,
    learnt=st.booleans(),
)


@kinds
@cases
def test_update_by_chunk(
    kind: str, num_layers: int, timesteps: int, batch_size: int, chunk_size: int, pattern: str, learnt: bool
) -> None:
    """Chunk by chunk the gradient of the chunk's mean loss, at weights that the chunks before have moved."""
    model = make_model(kind, num_layers, learnt=learnt)
    twin = copy.deepcopy(model)
    batch = masked_batch(pattern, timesteps, batch_size, chunk_size)
    updates = Chunked(chunk_size).updates(model, loss, batch, model.initial_state(batch_size))
    state, start = None, 0
    while start < timesteps:
        stop = min(start + chunk_size, timesteps)
        unrolled = oracles.run_model(kind, twin, batch.inputs[start:stop], state)
        state = [tuple(part.detach() for part in layer) for layer in unrolled.final]
        mask = None if batch.mask is None else batch.mask[start:stop]
        weight = (stop - start) * batch_size if mask is None else int(mask.sum())

        update = next(updates)
        assert (update.start, update.stop, update.weight) == (start, stop, weight)
        torch.testing.assert_close(leaves(update.state), [part for layer in state for part in layer])
        assert not any(leaf.requires_grad for leaf in leaves(update.state))
        if weight:
            error = oracles.squared_error(unrolled.predictions, batch.targets[start:stop], mask)
            gradient = oracles.gradients(error, twin)
            torch.testing.assert_close(update.loss, error.detach(), rtol=1e-9, atol=0)
            assert oracles.relative_error(oracles.taken(model), gradient) < 1e-9
            oracles.step_by_hand(model, oracles.taken(model), 0.1)
            oracles.step_by_hand(twin, gradient, 0.1)
            model.zero_grad()
        else:
            assert float(update.loss) == 0
            assert all(parameter.grad is None for parameter in model.parameters())
        start = stop
    assert next(updates, None) is None


@kinds
@cases
def test_one_update_a_sequence(
    kind: str, num_layers: int, timesteps: int, batch_size: int, chunk_size: int, pattern: str, learnt: bool
) -> None:
    """The gradient of the batch's mean loss, in a graph where nothing flows back from one chunk to another."""
    model = make_model(kind, num_layers, learnt=learnt)
    batch = masked_batch(pattern, timesteps, batch_size, chunk_size)
    (update,) = Chunked(chunk_size, update="sequence").updates(model, loss, batch, model.initial_state(batch_size))
    state, predictions = None, []
    for part in batch.inputs.split(chunk_size):
        unrolled = oracles.run_model(kind, model, part, state)
        state = [tuple(leaf.detach() for leaf in layer) for layer in unrolled.final]
        predictions.append(unrolled.predictions)
    error = oracles.squared_error(torch.cat(predictions), batch.targets, batch.mask)
    assert oracles.relative_error(oracles.taken(model), oracles.gradients(error, model)) < 1e-10
    torch.testing.assert_close(update.loss, error.detach(), rtol=1e-10, atol=0)
    assert (update.start, update.stop) == (0, timesteps)
    assert update.weight == (timesteps * batch_size if batch.mask is None else int(batch.mask.sum()))
    torch.testing.assert_close(leaves(update.state), [part for layer in state for part in layer])


def test_truncation_loses_gradient() -> None:
    """A loss at the end says nothing to the chunks before its own: chunks are not full BPTT by another name."""
    model, batch = make_model("elman"), masked_batch("last", 12, 2, 4)
    unrolled = oracles.run_model("elman", model, batch.inputs)
    exact = oracles.gradients(oracles.squared_error(unrolled.predictions, batch.targets, batch.mask), model)
    list(Chunked(4, update="sequence").updates(model, loss, batch, model.initial_state(2)))
    assert oracles.relative_error(oracles.taken(model), exact) > 1e-4


def test_chunk_size_is_a_length_and_not_a_number_of_chunks() -> None:
    model, batch = make_model("gru"), masked_batch("none", 10, 2, 4)
    updates = list(Chunked(4).updates(model, loss, batch, model.initial_state(2)))
    assert [(update.start, update.stop) for update in updates] == [(0, 4), (4, 8), (8, 10)]


def test_a_chunk_without_loss_builds_no_graph() -> None:
    """`passes` names the stretches that ran with a graph; a chunk that has no loss is not among them."""
    model, batch = make_model("gru"), masked_batch("last", 10, 2, 4)
    graphs: list[int] = []
    model.register_forward_hook(lambda _, inputs, output: graphs.append(len(inputs[0])))
    updates = list(Chunked(4).updates(model, loss, batch, model.initial_state(2)))
    assert [update.passes for update in updates] == [(), (), ((8, 10),)]
    assert graphs == [2]


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5, True, "4"])
def test_chunk_size_below_one_is_refused(chunk_size: Any) -> None:
    with pytest.raises(ValueError, match=r"chunk_size must be an integer >= 1, got .*; use estimator=full"):
        Chunked(chunk_size)


def test_unknown_update_is_refused() -> None:
    word: Any = "batch"
    with pytest.raises(ValueError, match="update must be chunk or sequence, got 'batch'"):
        Chunked(4, update=word)
