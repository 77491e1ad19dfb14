"""The part of a batch to measure on ends at its last loss and begins from the state that training has there."""

import pytest
import torch
from support.masked_batches import loss, make_model, masked_batch

from bptt.estimators import Full
from bptt.measures import PassRecorder, by_timestep_and_lag, exact_flows, last_timesteps_with_loss
from bptt.model import BLOCK
from bptt.shapes import leaves
from bptt.tasks import Batch


def batch_of(num_timesteps: int, last: int | None) -> Batch:
    mask = torch.zeros(num_timesteps, 2, dtype=torch.bool)
    if last is not None:
        mask[last, 0] = True
    return Batch(torch.randn(num_timesteps, 2, 2), torch.randn(num_timesteps, 2, 2), mask)


@pytest.mark.parametrize(("last", "first", "stop"), [(7, 4, 8), (2, 0, 3), (11, 8, 12), (None, 8, 12)])
def test_segment_ends_at_the_last_loss(last: int | None, first: int, stop: int) -> None:
    """The state is advanced without dropout and without drawing random numbers."""
    model, batch = make_model("lstm", 2, dropout=0.5), batch_of(12, last)
    start = model.initial_state(2)
    before = torch.get_rng_state()
    part, state, began = last_timesteps_with_loss(model, batch, start, 4)
    assert began == first
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(part.inputs, batch.inputs[first:stop])
    assert torch.equal(part.targets, batch.targets[first:stop])
    with torch.no_grad():  # kernels with a graph round in another way
        expected = model.without_dropout().advance(batch.inputs[:first], start) if first else start
    assert all(map(torch.equal, leaves(state), leaves(expected)))
    assert not any(leaf.requires_grad for leaf in leaves(state))


def test_long_stretches_are_passed_over_piece_by_piece() -> None:
    model, batch = make_model("gru"), batch_of(2 * BLOCK + 5, None)
    _, state, _ = last_timesteps_with_loss(model, batch, model.initial_state(2), 3)
    with torch.no_grad():
        expected = model.advance(batch.inputs[:-3], model.initial_state(2))
    torch.testing.assert_close(leaves(state), leaves(expected))


def test_a_gradient_needs_a_loss() -> None:
    model, batch = make_model("gru"), batch_of(5, None)
    with pytest.raises(ValueError, match="a batch must have a loss for a gradient to flow, got one without"):
        exact_flows(model, loss, batch, model.initial_state(2), num_sequences=2)


def test_exact_flows_do_not_change_the_model() -> None:
    """Flows are those of the whole batch, one per layer, without dropout."""
    model, batch = make_model("lstm", 2, dropout=0.5), masked_batch("last", 9, 3, 4)
    before = torch.get_rng_state()
    found = exact_flows(model, loss, batch, model.initial_state(3), num_sequences=2, num_losses=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    model.dropout = 0.0
    for size in (1, 2, 9):
        with PassRecorder(model, num_sequences=2) as recorder:
            (update,) = Full(size).updates(model, loss, batch, model.initial_state(3))
            passes = recorder.take(update.passes)
        recorded = by_timestep_and_lag(model, passes, factor=3, lag_factor=update.denominator, num_losses=1)
        for flow, other in zip(found, recorded, strict=True):
            torch.testing.assert_close(flow.by_timestep, other.by_timestep, rtol=1e-4, atol=1e-9)
            torch.testing.assert_close(flow.by_lag, other.by_lag, rtol=1e-4, atol=1e-9)
            assert flow.by_lag["h"].shape == (9, 2)


@pytest.mark.parametrize("last", [0, 4, 7, 10, 11])
@pytest.mark.parametrize("num_timesteps", [12, 13])
def test_exact_flows_have_every_timestep(last: int, num_timesteps: int) -> None:
    """Gradients are 0 after the last loss, at any position of it within a segment."""
    model, batch = make_model("lstm", 2), batch_of(num_timesteps, last)
    for flow in exact_flows(model, loss, batch, model.initial_state(2), num_sequences=2, num_losses=1):
        for norms in flow.by_timestep.values():
            assert norms.shape == (num_timesteps, 2)
            assert (norms[: last + 1, 0] > 0).all()
            assert not norms[last + 1 :].any()
        assert flow.by_lag["h"].shape == (last + 1, 2)
        assert flow.by_lag["h"].isnan().any(0).tolist() == [False, True], "the second sequence has no loss"


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_exact_flows_reach_layers_that_are_not_trained(kind: str) -> None:
    model, batch = make_model(kind, 2), masked_batch("none", 12, 3, 4)
    start = model.initial_state(3)
    trained = exact_flows(model, loss, batch, start, num_sequences=3)
    model.layers.requires_grad_(False)
    fixed = exact_flows(model, loss, batch, start, num_sequences=3)
    for one, other in zip(trained, fixed, strict=True):
        torch.testing.assert_close(one.by_timestep, other.by_timestep)
        torch.testing.assert_close(one.by_lag, other.by_lag, equal_nan=True)
    assert not any(parameter.requires_grad for parameter in model.layers.parameters())
