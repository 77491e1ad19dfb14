"""Passes kept by a recorder, and unchanged training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.gradients import gradient_at
from torch import Tensor

from bptt.estimators import Chunked, Full, Sliding, Update
from bptt.estimators.base import Estimator
from bptt.layers import GRU, LSTM, Elman, MinGRU
from bptt.layers.base import Layer
from bptt.measures import Pass, PassRecorder, by_timestep_and_lag
from bptt.model import SequenceModel
from bptt.shapes import leaves, map_state
from bptt.tasks.base import Batch

pytestmark = pytest.mark.usefixtures("float64")

T, B, D, V, H = 11, 4, 3, 2, 5


def squared(predictions: Tensor, batch: Batch) -> Tensor:
    return (predictions - batch.targets).square().sum(-1).mean()


@pytest.fixture
def model() -> SequenceModel:
    return SequenceModel(LSTM, input_size=D, output_size=V, hidden_size=H, num_layers=2)


@pytest.fixture
def batch() -> Batch:
    return Batch(torch.randn(T, B, D), torch.randn(T, B, V))


def run(
    model: SequenceModel, estimator: Estimator, batch: Batch, watch: PassRecorder | None = None
) -> list[tuple[Update, list[Pass]]]:
    model.zero_grad()
    updates = estimator.updates(model, squared, batch, model.initial_state(batch.batch_size))
    return [(update, [] if watch is None else watch.take(update.passes)) for update in updates]


def test_passes_come_in_the_order_of_time(model: SequenceModel, batch: Batch) -> None:
    """Full BPTT runs over its segments from the last to the first."""
    with PassRecorder(model, num_sequences=B) as watch:
        for estimator, connected in [
            (Full(4), [True, True, False]),
            (Chunked(4, update="sequence"), [False, False, False]),
        ]:
            ((update, passes),) = run(model, estimator, batch, watch)
            assert sorted(update.passes) == [(0, 4), (4, 8), (8, 11)]
            assert [(each.start, each.num_timesteps) for each in passes] == [(0, 4), (4, 4), (8, 3)]
            assert [each.connected for each in passes] == connected
            assert not watch.passes


def test_kept_values_are_those_of_the_pass(model: SequenceModel, batch: Batch) -> None:
    """Inputs, states and outputs of each layer, as a forward pass of one's own over the kernels gives them."""
    with PassRecorder(model, num_sequences=B) as watch:
        ((_, passes),) = run(model, Full(4), batch, watch)
    first, second = (level.get_submodule("kernel") for level in model.levels)
    with torch.no_grad():
        lower, _ = first(batch.inputs)
        upper, _ = second(lower)
    lower_record, upper_record = passes[1].records
    torch.testing.assert_close(lower_record.inputs, batch.inputs[4:8])
    torch.testing.assert_close(lower_record.outputs, lower[4:8])
    torch.testing.assert_close(upper_record.inputs, lower[4:8])
    torch.testing.assert_close(upper_record.initial.h, upper[3])
    torch.testing.assert_close(upper_record.final.h, upper[7])


def test_direct_gradient_is_that_of_the_readout(model: SequenceModel, batch: Batch) -> None:
    """At the last layer g_t = Vᵀ dL/dy_t, independent of later timesteps."""
    with PassRecorder(model, num_sequences=B) as watch:
        ((_, passes),) = run(model, Full(4), batch, watch)
    outputs = torch.cat([each.records[-1].outputs for each in passes])
    weight, bias = (model.get_parameter(f"readout.{name}").detach() for name in ("weight", "bias"))
    expected = 2 / (T * B) * (outputs @ weight.T + bias - batch.targets) @ weight
    torch.testing.assert_close(torch.cat([each.direct[-1] for each in passes]), expected)


@pytest.mark.parametrize("estimator", [Full(4), Chunked(4), Sliding(2, 5)], ids=["full", "chunked", "sliding"])
@pytest.mark.parametrize("layer", [Elman, GRU, LSTM, MinGRU])
def test_adjoint_from_training_equals_the_recursion(
    layer: Callable[[int, int], Layer], estimator: Estimator, batch: Batch
) -> None:
    model = SequenceModel(layer, input_size=D, output_size=V, hidden_size=H, num_layers=2, dropout=0.3)
    with PassRecorder(model, num_sequences=B - 1) as watch:
        passes = [each for _, passes in run(model, estimator, batch, watch) for each in passes]
    assert len(passes) > 2
    for each in passes:
        for level, own in enumerate(model.levels):
            adjoint_from_backward, found = (
                each.adjoint_from_backward[level],
                own.adjoint(each.records[level], each.direct[level], each.final[level]),
            )
            assert (adjoint_from_backward is None) == (layer is LSTM), "its kernel keeps the gradient to itself"
            for one, other in zip(leaves(each.adjoint(level, own).states), leaves(found.states)):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
            for one, other in zip(leaves(each.adjoint(level, own).initial), leaves(found.initial)):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("layer", [Elman, GRU, LSTM])
def test_gradients_of_two_backward_passes_over_one_pass_are_added_up(
    layer: Callable[[int, int], Layer], batch: Batch
) -> None:
    """First of the chunk's own loss, then of what comes from the next one; and of both at once."""
    model = SequenceModel(layer, input_size=D, output_size=V, hidden_size=H)
    found = []
    for at_once in (True, False):
        with PassRecorder(model, num_sequences=B) as watch:
            predictions, final, _ = model(batch.inputs[:6], model.initial_state(B))
            middle = map_state(lambda leaf: leaf.detach().requires_grad_(), final)
            own, later = predictions.square().sum(), model(batch.inputs[6:], middle)[0].square().sum()
            if not at_once:
                own.backward(retain_graph=True)
            later.backward()
            from_later = [leaf.grad for leaf in leaves(middle)]
            if at_once:
                torch.autograd.backward([own, *leaves(final)], [None, *from_later])
            else:
                torch.autograd.backward(leaves(final), from_later)
            found += by_timestep_and_lag(model, watch.take([(0, 6), (6, T)]), num_losses=1)
    together, in_turns = found
    torch.testing.assert_close(in_turns.by_timestep, together.by_timestep)
    torch.testing.assert_close(in_turns.by_lag, together.by_lag)
    assert in_turns.transport == pytest.approx(together.transport)


@pytest.mark.parametrize("num_sequences", [1, 3, 100])
def test_first_sequences_only(model: SequenceModel, batch: Batch, num_sequences: int) -> None:
    n = min(num_sequences, B)
    with PassRecorder(model, num_sequences=num_sequences) as few, PassRecorder(model, num_sequences=B) as all_of_them:
        for update in Full(4).updates(model, squared, batch, model.initial_state(B)):
            flows = by_timestep_and_lag(model, few.take(update.passes), num_losses=1)
            whole = by_timestep_and_lag(model, all_of_them.take(update.passes), num_losses=1)
    for some, each in zip(flows, whole):
        torch.testing.assert_close(some.by_timestep["c"], each.by_timestep["c"][:, :n], rtol=1e-12, atol=0)
        torch.testing.assert_close(some.by_lag["h"], each.by_lag["h"][:, :n], rtol=1e-12, atol=0)


def test_bound_on_timesteps_keeps_whole_passes_until_it_is_reached(model: SequenceModel, batch: Batch) -> None:
    """Dropped passes are not needed: full BPTT needs the last ones, and chunks are independent of each other."""
    with PassRecorder(model, num_sequences=B) as watch:
        ((update, passes),) = run(model, Full(2), batch, watch)
        whole = by_timestep_and_lag(model, passes, num_losses=1)
    with PassRecorder(model, num_sequences=B, max_timesteps=5) as watch:
        ((_, passes),) = run(model, Full(2), batch, watch)
        last = by_timestep_and_lag(model, passes, num_losses=1)
        ((_, chunks),) = run(model, Chunked(2, update="sequence"), batch, watch)
        assert [(each.start, each.num_timesteps) for each in chunks] == [(0, 2), (2, 2), (4, 2)]
        assert len(run(model, Chunked(2), batch, watch)) == 6  # the bound is on one update
    assert len(update.passes) == 6
    assert [(each.start, each.num_timesteps) for each in passes] == [(6, 2), (8, 2), (10, 1)]
    for some, each in zip(last, whole):
        assert some.start == 6
        assert len(some.by_lag["h"]) == 5
        torch.testing.assert_close(some.by_timestep["h"], each.by_timestep["h"][6:])
        torch.testing.assert_close(some.by_lag["c"], each.by_lag["c"][:5])


def test_bound_on_timesteps_keeps_what_a_window_s_loss_reaches_first(model: SequenceModel, batch: Batch) -> None:
    """Sliding windows end at their loss, and run towards it: what is furthest from it is left out."""
    with PassRecorder(model, num_sequences=B) as watch:
        whole = [
            by_timestep_and_lag(model, passes, num_losses=1) for _, passes in run(model, Sliding(2, 8), batch, watch)
        ]
    with PassRecorder(model, num_sequences=B, max_timesteps=5) as watch:
        bounded = [
            (passes, by_timestep_and_lag(model, passes, num_losses=1))
            for _, passes in run(model, Sliding(2, 8), batch, watch)
        ]
    assert len(bounded) == 6
    for (passes, flows), full in zip(bounded, whole):
        assert sum(each.num_timesteps for each in passes) <= 6
        for some, each in zip(flows, full):
            reach = len(some.by_lag["h"])
            assert reach == min(len(each.by_lag["h"]), sum(part.num_timesteps for part in passes))
            assert some.by_lag["h"].any()
            torch.testing.assert_close(some.by_lag["h"], each.by_lag["h"][:reach])


def test_looks_only_while_active_and_only_at_passes_with_a_graph(model: SequenceModel, batch: Batch) -> None:
    due = False
    with PassRecorder(model, num_sequences=1, active=lambda: due) as watch:
        run(model, Full(4), batch)
        assert not watch.passes
        due = True
        with torch.no_grad():
            model(batch.inputs, model.initial_state(B))
        assert not watch.passes
        model(batch.inputs, model.initial_state(B))
        assert len(watch.passes) == 1
        watch.take([(0, T)])
    run(model, Full(4), batch)
    assert not watch.passes  # closed


@pytest.mark.parametrize("layer", [Elman, GRU, LSTM])
@pytest.mark.parametrize("estimator", [Full(4), Chunked(4, update="sequence")], ids=["full", "chunked"])
def test_gradients_and_random_numbers_stay_the_same_to_the_bit(layer: Any, estimator: Estimator, batch: Batch) -> None:
    model = SequenceModel(layer, input_size=D, output_size=V, hidden_size=H, num_layers=3, dropout=0.3)
    torch.manual_seed(5)
    ((update, _),) = run(model, estimator, batch)
    gradients = [gradient_at(parameter).clone() for parameter in model.parameters()]
    random = torch.get_rng_state()
    torch.manual_seed(5)
    with PassRecorder(model, num_sequences=2) as watch:
        ((watched, passes),) = run(model, estimator, batch, watch)
        by_timestep_and_lag(model, passes, num_losses=1)
    assert torch.equal(update.loss, watched.loss)
    assert all(map(torch.equal, leaves(update.state), leaves(watched.state)))
    assert all(torch.equal(before, gradient_at(after)) for before, after in zip(gradients, model.parameters()))
    assert torch.equal(random, torch.get_rng_state())


def test_nothing_that_is_kept_has_a_graph(model: SequenceModel, batch: Batch) -> None:
    """A graph kept by a record would hold the memory of its whole pass."""
    with PassRecorder(model, num_sequences=2) as watch:
        ((_, passes),) = run(model, Full(4), batch, watch)
    for each in passes:
        for record, direct, final in zip(each.records, each.direct, each.final):
            kept = [record.inputs, record.outputs, *leaves(record.initial), *leaves(record.final), direct]
            assert not any(tensor.requires_grad for tensor in [*kept, *(leaves(final) if final else [])])


def test_frozen_layer(model: SequenceModel, batch: Batch) -> None:
    """Autograd computes no gradient below a frozen first layer; that of the layer above is unchanged."""
    with PassRecorder(model, num_sequences=B) as watch:
        for estimator in (Chunked(4, update="sequence"), Full(4)):
            model.requires_grad_(True)
            ((_, passes),) = run(model, estimator, batch, watch)
            whole = by_timestep_and_lag(model, passes, num_losses=1)
            model.layers[0].requires_grad_(False)
            ((_, passes),) = run(model, estimator, batch, watch)
            flows = by_timestep_and_lag(model, passes, num_losses=1)
            torch.testing.assert_close(flows[1].by_timestep, whole[1].by_timestep)
            torch.testing.assert_close(flows[1].by_lag, whole[1].by_lag)
