"""Batches whose mask is empty, and the pieces of a batch that estimators weigh."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.fixed_batches import random_batch
from support.gradients import gradient_at
from support.masked_batches import KINDS, loss, make_mask, make_model, masks

from bptt.estimators import Chunked, Estimator, Full
from bptt.shapes import leaves
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
ESTIMATORS: dict[str, Estimator] = {
    "chunked": Chunked(3),
    "chunked, one update a sequence": Chunked(3, update="sequence"),
    "full in segments": Full(3),
    "full": Full(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_batch_without_loss_only_advances_the_state(kind: str, name: str) -> None:
    model = make_model(kind, 2, learnt=True)
    batch = random_batch(8, 2, mask=torch.zeros(8, 2, dtype=torch.bool))
    updates = list(ESTIMATORS[name].updates(model, loss, batch, model.initial_state(2)))
    assert all(update.weight == 0 and float(update.loss) == 0 and update.passes == () for update in updates)
    assert all(parameter.grad is None for parameter in model.parameters())
    expected = oracles.run_model(kind, model, batch.inputs).final
    torch.testing.assert_close(leaves(updates[-1].state), [leaf.detach() for layer in expected for leaf in layer])
    assert not any(leaf.requires_grad for leaf in leaves(updates[-1].state))


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("timesteps", [1, 3, 7, 9])
def test_updates_tile_the_batch_and_the_state_goes_on(name: str, timesteps: int) -> None:
    """Each begins where the one before ended; the last state is that of a plain forward pass over everything."""
    model, batch = make_model("lstm", 2), random_batch(timesteps, 2)
    updates = list(ESTIMATORS[name].updates(model, loss, batch, model.initial_state(2)))
    borders = [0, *(update.stop for update in updates)]
    assert borders == [*(update.start for update in updates), timesteps]
    assert sum(update.weight for update in updates) == timesteps * 2
    _, final, _ = model(batch.inputs, model.initial_state(2))
    torch.testing.assert_close(leaves(updates[-1].state), [leaf.detach() for leaf in leaves(final)])
    ran = sorted(span for update in updates for span in update.passes)
    assert [start for start, _ in ran] == [0, *(stop for _, stop in ran[:-1])]
    assert ran[-1][1] == timesteps


@given(timesteps=st.integers(1, 12), batch_size=st.integers(1, 3), size=st.integers(1, 13), pattern=masks)
def test_losses_of_chunks_weighted_add_up_to_the_loss(timesteps: int, batch_size: int, size: int, pattern: str) -> None:
    batch = random_batch(timesteps, batch_size, mask=make_mask(pattern, timesteps, batch_size, size))
    predictions = torch.randn(timesteps, batch_size, 2)
    weights = batch.weights()
    total = 0.0
    for start, chunk in batch.split(size):
        weight = sum(weights[start : start + size])
        if weight:
            total += float(loss(predictions[start : start + size], chunk)) * weight
    expected = oracles.squared_error(predictions, batch.targets, batch.mask)
    assert total / sum(weights) == pytest.approx(float(expected), rel=1e-12)
    assert float(loss(predictions, batch)) == pytest.approx(float(expected), rel=1e-12)


def test_error_outside_the_mask_is_not_looked_at() -> None:
    """Errors outside the mask are ignored even if they are not finite."""
    mask = torch.tensor([[True, False], [False, True]])
    batch = random_batch(2, 2, mask=mask)
    batch.targets[~mask] = float("nan")
    predictions = torch.randn(2, 2, 2, requires_grad=True)
    error = loss(predictions, batch)
    error.backward()
    assert torch.isfinite(error)
    gradient = gradient_at(predictions)
    assert torch.isfinite(gradient).all()
    assert not gradient[~mask].any()


def test_loss_of_half_precision_predictions_is_in_single_precision() -> None:
    batch = random_batch(3, 2)
    assert loss(
        torch.randn(3, 2, 2, dtype=torch.bfloat16), Batch(batch.inputs.float(), batch.targets.float())
    ).dtype == (torch.float32)


def test_weights_count_the_losses_of_each_timestep() -> None:
    mask = torch.tensor([[True, True, True], [False, True, False], [False, False, False]])
    assert random_batch(3, 3, mask=mask).weights() == [3, 1, 0]
    assert random_batch(3, 4).weights() == [4, 4, 4]


def test_inside_keeps_values_at_timesteps_with_a_loss() -> None:
    mask = torch.tensor([[True, False], [False, True], [True, True]])
    batch = random_batch(3, 2, mask=mask)
    expected = torch.stack([batch.targets[t, b] for t in range(3) for b in range(2) if mask[t, b]])
    assert torch.equal(batch.inside(batch.targets), expected)
    assert torch.equal(random_batch(3, 2).inside(torch.arange(6).view(3, 2)), torch.arange(6))


@pytest.mark.parametrize("masked", [True, False])
def test_columns_are_sequences(masked: bool) -> None:
    mask = torch.rand(5, 4) < 0.5 if masked else None
    reset = torch.tensor([True, False, True, True]) if masked else None
    whole = random_batch(5, 4, mask=mask, reset=reset)
    part = whole.columns(slice(1, 3))
    assert part.batch_size == 2
    assert part.num_timesteps == 5
    assert torch.equal(part.inputs, whole.inputs[:, 1:3])
    assert torch.equal(part.targets, whole.targets[:, 1:3])
    if mask is None or reset is None:
        assert part.mask is None
        assert part.reset is None
    else:
        assert part.mask is not None
        assert part.reset is not None
        assert torch.equal(part.mask, mask[:, 1:3])
        assert torch.equal(part.reset, reset[1:3])


def test_split_has_chunks_of_a_length_and_a_ragged_end() -> None:
    batch = random_batch(7, 2, mask=torch.rand(7, 2) < 0.5)
    chunks = list(batch.split(3))
    assert [(start, chunk.num_timesteps) for start, chunk in chunks] == [(0, 3), (3, 3), (6, 1)]
    for name in ("inputs", "targets", "mask"):
        joined: Any = torch.cat([getattr(chunk, name) for _, chunk in chunks])
        assert torch.equal(joined, getattr(batch, name))


def test_to_moves_every_tensor() -> None:
    batch = random_batch(3, 2, mask=torch.rand(3, 2) < 0.5, reset=torch.tensor([True, False]))
    batch = replace(batch, initial=(torch.zeros(2, 4), (torch.zeros(2, 4), torch.zeros(2, 4)))).to("meta")
    assert batch.initial is not None
    tensors = [batch.inputs, batch.targets, batch.mask, batch.reset, *leaves(batch.initial)]
    assert {tensor.device.type for tensor in tensors if tensor is not None} == {"meta"}
    assert None not in tensors
    assert random_batch(3, 2).to("meta").mask is None
