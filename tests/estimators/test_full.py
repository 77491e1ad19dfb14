"""Full BPTT in segments: what it computes again, with which random numbers, and how long its graphs are."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.masked_batches import KINDS, loss, make_model, masked_batch, masks
from torch import Tensor

from bptt.estimators import Full
from bptt.estimators.segment_memory import SavedBytes, longest_segment
from bptt.measures.memory import saved_tensor_bytes
from bptt.shapes import leaves

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@given(timesteps=st.integers(1, 12), segment_size=st.integers(1, 13), pattern=masks, num_layers=st.integers(2, 3))
def test_dropout_repeats_its_draws(kind: str, timesteps: int, segment_size: int, pattern: str, num_layers: int) -> None:
    """The gradient is that of one pass over the segments in order, whose masks go into one unrolled graph.

    Afterwards the random numbers to come are those after that pass.
    """
    model = make_model(kind, num_layers, dropout=0.5)
    batch = masked_batch(pattern, timesteps, 2, segment_size)
    begin = torch.get_rng_state()
    masks: list[list[Tensor]] = [[] for _ in range(num_layers - 1)]
    state = model.initial_state(2)
    for part in batch.inputs.split(segment_size):
        _, state, records = model(part, state)
        for between, record in zip(masks, records):
            between.append(record.mask)
    end = torch.get_rng_state()
    unrolled = oracles.run_model(kind, model, batch.inputs, masks=[torch.cat(between) for between in masks])
    error = oracles.squared_error(unrolled.predictions, batch.targets, batch.mask)
    expected = oracles.gradients(error, model)

    torch.set_rng_state(begin)
    (update,) = Full(segment_size).updates(model, loss, batch, model.initial_state(2))
    torch.testing.assert_close(update.loss, error.detach(), rtol=1e-10, atol=0)
    assert oracles.relative_error(oracles.grads(model), expected) < 1e-10
    torch.testing.assert_close(leaves(update.state), [leaf.detach() for layer in unrolled.final for leaf in layer])
    assert torch.equal(torch.get_rng_state(), end)


@pytest.mark.parametrize(
    ("timesteps", "segment_size", "longest"), [(20, 3, 3), (20, None, 20), (100, None, 100), (1, None, 1)]
)
def test_no_graph_is_longer_than_a_segment(timesteps: int, segment_size: int | None, longest: int) -> None:
    """The default is one segment if it fits the memory budget."""
    model, batch = make_model("lstm"), masked_batch("none", timesteps, 2, 3)
    graphs: list[int] = []
    model.register_forward_hook(lambda _, inputs, output: graphs.append(len(inputs[0])))
    (update,) = Full(segment_size).updates(model, loss, batch, model.initial_state(2))
    assert max(graphs) == longest
    assert sum(graphs) == timesteps
    assert [stop - start for start, stop in update.passes] == graphs
    assert sorted(update.passes)[0][0] == 0


def test_timesteps_after_the_last_loss_build_no_graph() -> None:
    model, batch = make_model("gru"), masked_batch("early", 20, 2, 5)
    (update,) = Full(5).updates(model, loss, batch, model.initial_state(2))
    assert max(stop for _, stop in update.passes) <= 10
    assert update.stop == 20


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("share", [1.1, 0.5, 0.3])
def test_memory_stays_within_the_budget(kind: str, share: float) -> None:
    """Saved tensors and stored states together, for a share of what one plain pass saves; and no less than half of it,
    as shorter segments than the budget allows would only cost time."""
    model = make_model(kind, 2)
    batch, state = masked_batch("none", 200, 8, 1), model.initial_state(8)
    with saved_tensor_bytes() as plain:
        loss(model(batch.inputs, state)[0], batch)
    budget = share * plain.peak
    with saved_tensor_bytes() as held:
        (update,) = Full(memory_mb=budget / 2**20).updates(model, loss, batch, state)
    states = len(update.passes) * sum(leaf.nbytes for leaf in leaves(state))
    assert held.peak + states <= 1.02 * budget
    assert held.peak + states >= 0.5 * budget
    assert (len(update.passes) == 1) == (share > 1)


@given(
    timesteps=st.integers(1, 300),
    per_timestep=st.integers(1, 1000),
    border=st.integers(1, 1000),
    budget=st.integers(1, 100_000),
)
def test_longest_segment(timesteps: int, per_timestep: int, border: int, budget: int) -> None:
    """Against trying every size: the largest that fits, or else the least memory, to the rounding of the last state."""

    def memory(size: int) -> float:
        return size * per_timestep + (0 if size == timesteps else timesteps / size * border)

    size = longest_segment(timesteps, SavedBytes(0, per_timestep), border, budget)
    fitting = [each for each in range(1, timesteps + 1) if memory(each) <= budget]
    if fitting:
        assert size == max(fitting)
    else:
        assert memory(size) <= min(memory(each) for each in range(1, timesteps + 1)) + per_timestep + border


def test_probing_memory_leaves_training_alone() -> None:
    """No random number is drawn, no hook runs, and dropout's draws are those of one plain pass."""
    model, batch = make_model("gru", 2, dropout=0.5), masked_batch("none", 9, 2, 3)
    calls: list[int] = []
    model.register_forward_hook(lambda _, inputs, output: calls.append(len(inputs[0])))
    begin = torch.get_rng_state()
    list(Full().updates(model, loss, batch, model.initial_state(2)))
    by_full, end = oracles.grads(model), torch.get_rng_state()
    assert calls == [9]
    model.zero_grad()
    torch.set_rng_state(begin)
    loss(model(batch.inputs, model.initial_state(2))[0], batch).backward()
    assert oracles.relative_error(by_full, oracles.grads(model)) < 1e-12
    assert torch.equal(torch.get_rng_state(), end)


@pytest.mark.parametrize("memory_mb", [0, -1.0, "4", float("nan")])
def test_memory_that_is_no_positive_number_is_refused(memory_mb: Any) -> None:
    with pytest.raises(ValueError, match=r"memory_mb must be a number in \(0, inf\), got"):
        Full(memory_mb=memory_mb)


@pytest.mark.parametrize("segment_size", [0, -3, 1.5, True])
def test_segment_size_below_one_is_refused(segment_size: Any) -> None:
    with pytest.raises(ValueError, match=r"segment_size must be an integer >= 1, got .*; use null for the largest"):
        Full(segment_size)


@pytest.mark.parametrize("scale", [2.0**14, 2.0**16])
def test_small_gradients_survive_float16(scale: float) -> None:
    """λ handed from segment to segment must stay scaled or in float32: unscaled in float16 it underflows.

    With one segment autograd hands λ on by itself; the segments must do as well, at the scale that training starts
    with, 2¹⁶, too, which float16 cannot hold.
    """
    model, batch = make_model("elman", 2).float(), masked_batch("last", 64, 16, 4)
    with torch.no_grad():  # keep the gradient going, so that the early segments have a share in it
        for level in (0, 1):
            model.get_parameter(f"layers.{level}.kernel.weight_hh_l0").copy_(0.95 * torch.eye(4))

    def gradient(segment_size: int) -> dict[str, Tensor]:
        model.zero_grad()
        updates = Full(segment_size).updates(
            model,
            lambda *given: 1e-5 * loss(*given),
            batch,
            model.initial_state(16),
            lambda loss: (scale * loss).backward(),
        )
        assert len(list(updates)) == 1
        return {name: value / scale for name, value in oracles.grads(model).items() if "weight_ih" in name}

    exact = gradient(64)
    with torch.autocast("cpu", torch.float16):
        once, in_segments = gradient(64), gradient(4)
    assert oracles.relative_error(once, exact) < 5e-3
    assert oracles.relative_error(in_segments, exact) < 5e-3


@kinds
def test_a_readout_alone_is_trained_where_the_first_segment_has_no_loss(kind: str) -> None:
    model, batch = make_model(kind), masked_batch("last", 6, 2, 3)
    for layer in model.levels:
        layer.requires_grad_(False)
    (update,) = Full(segment_size=2).updates(model, loss, batch, model.initial_state(2))
    found = [parameter.grad for parameter in model.readout.parameters()]
    model.zero_grad()
    (whole,) = Full().updates(model, loss, batch, model.initial_state(2))
    torch.testing.assert_close(found, [parameter.grad for parameter in model.readout.parameters()])
    torch.testing.assert_close(update.loss, whole.loss)


def test_a_first_batch_of_one_timestep_says_nothing_of_longer_ones() -> None:
    model = make_model("gru")
    estimator = Full(memory_mb=0.01)
    for timesteps in (1, 200):
        batch = masked_batch("none", timesteps, 2, 4)
        (update,) = estimator.updates(model, loss, batch, model.initial_state(2))
    assert len(update.passes) > 1
