"""Truncated BPTT against a loop that detaches by hand."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.masked_batches import KINDS, loss, make_model, masked_batch, masks

from bptt.estimators import Chunked, Sliding
from bptt.shapes import leaves
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", KINDS)
RAGGED: tuple[Any, ...] = ("auto", "first", "last")
cases = given(
    num_layers=st.integers(1, 3),
    timesteps=st.integers(1, 13),
    batch_size=st.integers(1, 3),
    chunk_size=st.integers(1, 14),
    burn_in=st.one_of(st.just(0), st.integers(1, 14)),
    ragged=st.sampled_from(RAGGED),
    pattern=masks,
    learnt=st.booleans(),
)


def chunks_by_hand(batch: Batch, chunk_size: int, burn_in: int, ragged: str) -> list[tuple[int, int]]:
    """The trained timesteps of each chunk, counted from the front or from the end."""
    length = batch.num_timesteps
    if burn_in >= length:
        return [(length, length)]
    if ragged == "auto":
        early = slice(burn_in, max(burn_in, length - chunk_size))
        losses_before = early.stop > early.start and (batch.mask is None or bool(batch.mask[early].any()))
        any_loss = batch.mask is None or bool(batch.mask[burn_in:].any())
        ragged = "first" if any_loss and not losses_before else "last"
    if ragged == "last":
        return [(start, min(start + chunk_size, length)) for start in range(burn_in, length, chunk_size)]
    ends = list(range(length, burn_in, -chunk_size))[::-1]
    return [(max(burn_in, stop - chunk_size), stop) for stop in ends]


@kinds
@cases
def test_update_by_chunk(
    kind: str,
    num_layers: int,
    timesteps: int,
    batch_size: int,
    chunk_size: int,
    burn_in: int,
    ragged: Any,
    pattern: str,
    learnt: bool,
) -> None:
    """Chunk by chunk the gradient of the chunk's mean loss, at weights that the chunks before have moved.

    The burn-in begins at the state that the window before has stored there.
    """
    model = make_model(kind, num_layers, learnt=learnt)
    twin = copy.deepcopy(model)
    batch = masked_batch(pattern, timesteps, batch_size, chunk_size)
    estimator = Chunked(chunk_size, ragged=ragged, burn_in=burn_in)
    updates = estimator.updates(model, loss, batch, model.initial_state(batch_size))
    stored: dict[int, Any] = {0: None}
    begun = 0
    for start, stop in chunks_by_hand(batch, chunk_size, burn_in, ragged):
        first = max(0, start - burn_in)
        state = stored[first]
        if first < start:
            before = oracles.run_model(kind, twin, batch.inputs[first:start], state)
            stored |= {first + t + 1: _detached(before, t) for t in range(start - first)}
            state = stored[start]
        update = next(updates)
        assert (update.start, update.stop) == (begun, stop)
        begun = stop
        if start == stop:
            assert update.weight == 0
            torch.testing.assert_close(leaves(update.state), [part for layer in state for part in layer])
            continue
        unrolled = oracles.run_model(kind, twin, batch.inputs[start:stop], state)
        stored |= {start + t + 1: _detached(unrolled, t) for t in range(stop - start)}
        mask = None if batch.mask is None else batch.mask[start:stop]
        weight = (stop - start) * batch_size if mask is None else int(mask.sum())
        assert update.weight == weight
        torch.testing.assert_close(leaves(update.state), [part for layer in stored[stop] for part in layer])
        assert not any(leaf.requires_grad for leaf in leaves(update.state))
        if weight:
            error = oracles.squared_error(unrolled.predictions, batch.targets[start:stop], mask)
            gradient = oracles.gradients(error, twin)
            torch.testing.assert_close(update.loss, error.detach(), rtol=1e-9, atol=0)
            assert oracles.relative_error(oracles.grads(model), gradient) < 1e-9
            oracles.step_by_hand(model, oracles.grads(model), 0.1)
            oracles.step_by_hand(twin, gradient, 0.1)
            model.zero_grad()
        else:
            assert float(update.loss) == 0
            assert all(parameter.grad is None for parameter in model.parameters())
    assert next(updates, None) is None


def _detached(unrolled: oracles.Unrolled, t: int) -> list[oracles.CellState]:
    return [tuple(part.detach() for part in layer[t]) for layer in unrolled.states]


@kinds
@cases
def test_one_update_a_sequence(
    kind: str,
    num_layers: int,
    timesteps: int,
    batch_size: int,
    chunk_size: int,
    burn_in: int,
    ragged: Any,
    pattern: str,
    learnt: bool,
) -> None:
    """The gradient of the batch's mean loss, in a graph where nothing flows back from one chunk to another."""
    model = make_model(kind, num_layers, learnt=learnt)
    batch = masked_batch(pattern, timesteps, batch_size, chunk_size)
    estimator = Chunked(chunk_size, update="sequence", ragged=ragged, burn_in=burn_in)
    (update,) = estimator.updates(model, loss, batch, model.initial_state(batch_size))
    borders = chunks_by_hand(batch, chunk_size, burn_in, ragged)
    state, predictions = None, []
    for start, stop in [(0, borders[0][0]), *borders]:
        if start < stop:
            unrolled = oracles.run_model(kind, model, batch.inputs[start:stop], state)
            state = _detached(unrolled, -1)
            predictions.append(unrolled.predictions)
    skipped = min(burn_in, timesteps)
    mask = torch.ones(timesteps, batch_size, dtype=torch.bool) if batch.mask is None else batch.mask.clone()
    mask[:skipped] = False
    assert update.weight == int(mask.sum())
    if update.weight:
        error = oracles.squared_error(torch.cat(predictions), batch.targets, mask)
        assert oracles.relative_error(oracles.grads(model), oracles.gradients(error, model)) < 1e-10
        torch.testing.assert_close(update.loss, error.detach(), rtol=1e-10, atol=0)
    assert (update.start, update.stop) == (0, timesteps)
    assert state is not None
    torch.testing.assert_close(leaves(update.state), [part for layer in state for part in layer])


@pytest.mark.parametrize(("chunk_size", "ragged", "seen"), [(16, "auto", 16), (16, "first", 16), (16, "last", 8)])
def test_a_loss_at_the_end_gets_a_whole_chunk(chunk_size: int, ragged: Any, seen: int) -> None:
    """T = 40, a loss at the last timestep: how many timesteps of inputs its gradient reaches."""
    model, batch = make_model("gru"), masked_batch("last", 40, 2, 4)
    batch.inputs.requires_grad_()
    list(Chunked(chunk_size, ragged=ragged).updates(model, loss, batch, model.initial_state(2)))
    assert batch.inputs.grad is not None
    assert int(batch.inputs.grad.flatten(1).any(1).sum()) == seen


def test_losses_all_over_a_batch_are_counted_from_its_start() -> None:
    """Chunks are also counted from the start if the last losses extend over more than one chunk."""
    estimator = Chunked(4)
    assert estimator.chunks([True] * 10, 0) == [(0, 4), (4, 8), (8, 10)]
    assert estimator.chunks([False] * 5 + [True] * 5, 0) == [(0, 4), (4, 8), (8, 10)]
    assert estimator.chunks([False] * 6 + [True] * 4, 0) == [(0, 2), (2, 6), (6, 10)]
    assert estimator.chunks([False] * 10, 0) == [(0, 4), (4, 8), (8, 10)]


@pytest.mark.parametrize("burn_in", [-1, 1.5, True])
def test_burn_in_that_is_no_count_is_refused(burn_in: Any) -> None:
    with pytest.raises(ValueError, match="burn_in must be an integer >= 0, got"):
        Chunked(4, burn_in=burn_in)
    with pytest.raises(ValueError, match="burn_in must be an integer >= 0, got"):
        Sliding(4, 8, burn_in=burn_in)


def test_truncation_loses_gradient() -> None:
    """A loss at the end says nothing to the chunks before its own: chunks are not full BPTT by another name."""
    model, batch = make_model("elman"), masked_batch("last", 12, 2, 4)
    unrolled = oracles.run_model("elman", model, batch.inputs)
    exact = oracles.gradients(oracles.squared_error(unrolled.predictions, batch.targets, batch.mask), model)
    list(Chunked(4, update="sequence").updates(model, loss, batch, model.initial_state(2)))
    assert oracles.relative_error(oracles.grads(model), exact) > 1e-4


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
    assert [update.passes for update in updates] == [(), (), ((6, 10),)]
    assert graphs == [4]


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5, True, "4"])
def test_chunk_size_below_one_is_refused(chunk_size: Any) -> None:
    with pytest.raises(ValueError, match=r"chunk_size must be an integer >= 1, got .*; use estimator=full"):
        Chunked(chunk_size)


def test_unknown_update_is_refused() -> None:
    word: Any = "batch"
    with pytest.raises(ValueError, match="update must be chunk or sequence, got 'batch'"):
        Chunked(4, update=word)


@pytest.mark.parametrize("ragged", RAGGED)
def test_the_sequences_of_a_process_have_the_chunks_of_the_whole_batch(ragged: Any) -> None:
    """Sequences of 10 and 5 timesteps with a loss at their ends: the gradients of two processes add up to those of one.

    One sequence alone would be counted from the end, both together are not.
    """
    model, whole = make_model("gru"), masked_batch("none", 10, 2, 4)
    whole.mask = torch.zeros(10, 2, dtype=torch.bool)
    whole.mask[9, 0] = whole.mask[4, 1] = True
    parts = [whole, *(whole.columns(slice(column, column + 1)) for column in (0, 1))]
    found: list[Any] = []
    for batch in parts:
        gradients, spans, state = [], [], model.initial_state(batch.batch_size)
        for update in Chunked(4, ragged=ragged).updates(model, loss, batch, state):
            gradients.append({name: value * update.weight for name, value in oracles.grads(model).items()})
            spans.append((update.start, update.stop))
            model.zero_grad()
        found.append((spans, gradients))
    assert found[0][0] == found[1][0] == found[2][0]
    for together, first, second in zip(*(gradients for _, gradients in found), strict=True):
        torch.testing.assert_close({name: first[name] + second[name] for name in together}, together)


def test_a_learnt_initial_state_alone_is_trained() -> None:
    """No gradient reaches it from later chunks."""
    model, batch = make_model("gru", learnt=True), masked_batch("none", 10, 2, 4)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("initial."))
    updates = list(Chunked(4).updates(model, loss, batch, model.initial_state(2)))
    assert [update.stop for update in updates] == [4, 8, 10]
    assert all(oracles.grads(model)[name].any() for name in oracles.grads(model) if name.startswith("initial."))
