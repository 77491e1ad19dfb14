"""Sequences that begin again within a batch, against their episodes run apart."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from support import oracles
from support.fixed_batches import FixedBatches, random_batch
from support.gradients import gradient_at
from support.masked_batches import KINDS, loss, make_mask, make_model
from torch import Tensor, nn

from bptt.estimators import RTRL, UORO, Adaptive, Chunked, Estimator, Full, Randomized, Sliding, SnAp
from bptt.estimators.adaptive import gradients_by_lag, reached
from bptt.initial_state import initial_state, state_at_start
from bptt.layers import LRU, LSTM, Layer, MinGRU
from bptt.layers.lstm import LSTMState
from bptt.layers.reset import Reset
from bptt.lightning.carry import Carry
from bptt.lightning.evaluation import Evaluation
from bptt.measures.gradient_flow import exact_flows
from bptt.measures.jacobian import jacobian_products, lyapunov_exponents
from bptt.measures.manual import manual_gradients
from bptt.model import SequenceModel
from bptt.shapes import leaves, map_state
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", KINDS)
T, B = 9, 3


def batch_with_resets(pattern: str = "random") -> Batch:
    """Sequence 0 begins again at 3 and 4, sequence 1 at 0 and 7, sequence 2 at 4."""
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[[3, 4], 0] = reset[[0, 7], 1] = True
    reset[4, 2] = True
    return random_batch(T, B, mask=make_mask(pattern, T, B, 4), reset=reset)


def beginning(kind: str, model: SequenceModel) -> list[oracles.CellState]:
    states = oracles.zero_states if model.initial is None else oracles.learnt_states
    return states(kind, model, B)


def run(
    kind: str, model: SequenceModel, batch: Batch, state: list[oracles.CellState], first: int = 0, last: int = T
) -> tuple[list[Tensor], list[list[oracles.CellState]]]:
    """Predictions and states of timesteps first … last − 1, one by one, with the initial state put in at resets."""
    assert batch.reset is not None
    predictions, states = [], []
    for t in range(first, last):
        again = batch.reset[t].unsqueeze(1)
        state = [
            tuple(torch.where(again, new, old) for new, old in zip(*layer))
            for layer in zip(beginning(kind, model), state, strict=True)
        ]
        unrolled = oracles.run_model(kind, model, batch.inputs[t : t + 1], state)
        state = unrolled.final
        predictions.append(unrolled.predictions[0])
        states.append(state)
    return predictions, states


def detached(state: list[oracles.CellState]) -> list[oracles.CellState]:
    return [tuple(part.detach() for part in layer) for layer in state]


def error(predictions: list[Tensor], batch: Batch, mask: Tensor | None = None) -> Tensor:
    return oracles.squared_error(torch.stack(predictions), batch.targets, batch.mask if mask is None else mask)


def given_state(model: SequenceModel) -> Any:
    """A random state in the structure of the model's."""
    return map_state(torch.randn_like, map_state(torch.Tensor.detach, model.initial_state(B)))


def cells(state: Any) -> list[oracles.CellState]:
    return [tuple(leaves(layer)) for layer in state]


def estimated(estimator: Estimator, model: SequenceModel, batch: Batch, state: Any = None) -> dict[str, Tensor]:
    model.zero_grad()
    state = model.initial_state(batch.batch_size) if state is None else state
    (update,) = estimator.updates(model, loss, batch, state)
    assert update.stop == batch.num_timesteps
    return oracles.grads(model)


def episodes(batch: Batch) -> list[Batch]:
    """Each episode of each sequence as a batch of its own."""
    assert batch.reset is not None
    found = []
    for b in range(batch.batch_size):
        borders = sorted({0, batch.num_timesteps, *batch.reset[:, b].nonzero().flatten().tolist()})
        column = batch.columns(slice(b, b + 1))
        for start, stop in pairwise(borders):
            part = column.between(start, stop)
            found.append(Batch(part.inputs, part.targets, part.mask))
    return found


def apart(estimator: Estimator, model: SequenceModel, batch: Batch) -> dict[str, Tensor]:
    """An estimator's gradient of the batch's mean loss, episode by episode."""
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    whole = sum(batch.weights())
    for episode in episodes(batch):
        if weight := sum(episode.weights()):
            for name, gradient in estimated(estimator, model, episode).items():
                total[name] += gradient * (weight / whole)
    return total


@kinds
@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize(("num_layers", "pattern"), [(1, "none"), (2, "random"), (3, "last")])
def test_exact_estimators(kind: str, num_layers: int, pattern: str, learnt: bool) -> None:
    """The gradient is that of the episodes run apart, which a learnt initial state gets from all of them."""
    model, batch = make_model(kind, num_layers, learnt=learnt), batch_with_resets(pattern)
    exact = oracles.gradients(error(run(kind, model, batch, beginning(kind, model))[0], batch), model)
    assert oracles.relative_error(apart(Full(), model, batch), exact) < 1e-10
    estimators = [Full(), Full(1), Full(4), Chunked(T, update="sequence"), Sliding(T, T)]
    estimators += [RTRL(4, update="sequence")] if num_layers < 3 else []
    for estimator in estimators:
        assert oracles.relative_error(estimated(estimator, model, batch), exact) < 1e-10, estimator
    by_hand = manual_gradients(model, loss, batch, model.initial_state(B))
    assert oracles.relative_error(by_hand, {name: exact[name] for name in by_hand}) < 1e-10


@kinds
def test_states_that_a_batch_gives(kind: str) -> None:
    """Sequences that begin with the batch have the batch's states, those that go on the carried ones."""
    model, batch = make_model(kind, 2, learnt=True), batch_with_resets()
    own, carried = given_state(model), given_state(model)
    given = replace(batch, initial=own)
    start = state_at_start(model, given, carried)
    for got, new, old in zip(leaves(start), leaves(own), leaves(carried), strict=True):
        assert torch.equal(got, torch.stack([old[0], new[1], old[2]]))
    assert batch.reset is not None
    later = batch.reset.clone()
    later[0] = False
    plain = replace(batch, reset=later)
    exact = oracles.gradients(error(run(kind, model, plain, cells(start))[0], batch), model)
    for estimator in (Full(), Full(4), Chunked(T, update="sequence"), Sliding(T, T), RTRL(4, update="sequence")):
        assert oracles.relative_error(estimated(estimator, model, given, start), exact) < 1e-10, estimator
    by_hand = manual_gradients(model, loss, given, start)
    assert oracles.relative_error(by_hand, {name: exact[name] for name in by_hand}) < 1e-10
    for whole, part in zip(leaves(own), leaves(given.columns(slice(1, 3)).to("cpu").initial or ()), strict=True):
        assert torch.equal(whole[1:3], part)
    with pytest.raises(ValueError, match=r"Batch.initial must have tensors like model.initial_state\(B\), "):
        initial_state(model, replace(batch, initial=torch.zeros(B, 4)))


@kinds
@pytest.mark.parametrize("burn_in", [0, 2])
@pytest.mark.parametrize("given", [False, True])
def test_chunks_and_windows(kind: str, burn_in: int, given: bool) -> None:
    """Truncated at chunk borders and at resets; a learnt initial state is trained at the resets inside a chunk.

    given: the batch gives the states of the sequences that begin with it, which are constants then.
    """
    model, batch = make_model(kind, 2, learnt=True), batch_with_resets()
    assert batch.reset is not None
    own = batch
    if given:
        batch.reset[0] = False  # the oracle would put the model's state in
        own = replace(batch, initial=given_state(model), reset=batch.reset.clone())
        assert own.reset is not None
        own.reset[0] = True
    assert batch.mask is not None
    mask = batch.mask.clone()
    mask[:burn_in] = False
    begun = initial_state(model, own)
    start = cells(begun)
    predictions: list[Tensor] = []
    for first, last in pairwise(sorted({0, burn_in, *range(burn_in, T, 3), T})):
        made, states = run(kind, model, batch, start, first, last)
        predictions, start = predictions + made, detached(states[-1])
    exact = oracles.gradients(error(predictions, batch, mask), model)
    estimator = Chunked(3, update="sequence", ragged="last", burn_in=burn_in)
    assert oracles.relative_error(estimated(estimator, model, own, begun), exact) < 1e-10

    model.zero_grad()
    states_before = [cells(begun), *run(kind, model, batch, cells(begun))[1]]
    for update in Sliding(2, 5, burn_in=burn_in).updates(model, loss, own, begun):
        first = max(update.start, burn_in)
        if not update.weight:
            continue
        origin = max(burn_in, first + 2 - 5)
        before = states_before[0] if origin == 0 else detached(states_before[origin])
        newest = run(kind, model, batch, before, origin, update.stop)[0][first - origin :]
        part = slice(first, update.stop)
        exact = oracles.gradients(oracles.squared_error(torch.stack(newest), batch.targets[part], mask[part]), model)
        assert oracles.relative_error(oracles.grads(model), exact) < 1e-10
        model.zero_grad()


def test_randomized() -> None:
    """The gradient is amplified where it is not cut; at a reset nothing of it is left to amplify."""
    model, batch = make_model("gru", 2, learnt=True), batch_with_resets()
    estimator, twin = (Randomized(4, block=2, update="sequence", seed=5) for _ in range(2))
    state, predictions = beginning("gru", model), []
    factors = []
    for first, last, factor in twin.truncations(T):
        made, states = run("gru", model, batch, state, first, last)
        predictions += made
        state = [tuple(factor * part + (1 - factor) * part.detach() for part in layer) for layer in states[-1]]
        factors.append(factor)
    assert 0 in factors[:-1]
    assert max(factors[:-1]) > 1
    exact = oracles.gradients(error(predictions, batch), model)
    assert oracles.relative_error(estimated(estimator, model, batch), exact) < 1e-10


def test_snap_is_that_of_the_episodes() -> None:
    model, batch = make_model("gru", 1, learnt=True), batch_with_resets()
    estimator = SnAp(4, update="sequence")
    assert oracles.relative_error(estimated(estimator, model, batch), apart(estimator, model, batch)) < 1e-10


@pytest.mark.parametrize("make", [lambda: UORO(4, update="sequence"), lambda: Adaptive(0.1)], ids=["uoro", "adaptive"])
def test_nothing_before_a_reset_matters(make: Any) -> None:
    """Other inputs before it: the same gradient to the bit, as all losses are after it."""
    model, reset = make_model("gru", 2), torch.zeros(T, B, dtype=torch.bool)
    reset[4] = True
    mask = torch.zeros(T, B, dtype=torch.bool)
    mask[4:] = True
    batch = random_batch(T, B, mask=mask, reset=reset)
    found: list[list[tuple[int, dict[str, Tensor]]]] = []
    for scale in (1, 2):
        batch.inputs[:4] *= scale
        found.append([])
        for update in make().updates(model, loss, batch, model.initial_state(B)):
            found[-1].append((update.stop, oracles.grads(model) if update.weight else {}))
            model.zero_grad()
    assert [stop for stop, _ in found[0]] == [stop for stop, _ in found[1]]
    for (_, one), (_, other) in zip(*found):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_one_pass_of_the_lstm_kernel(dtype: torch.dtype, tolerance: float) -> None:
    """Equal to the passes from reset to reset; the gradient across a reset is exactly 0 in both of torch's kernels."""
    layer = LSTM(5, 7).to(dtype)
    inputs, weights = torch.randn(T, B, 5, dtype=dtype), torch.randn(T, B, 7, dtype=dtype)
    mask = batch_with_resets().resets
    assert mask is not None
    reset = Reset.at(mask, layer.initial_state(B))
    found = []
    for forward in (layer.forward_with_resets, partial(Layer.forward_with_resets, layer)):
        state = LSTMState(*torch.randn(2, B, 7, dtype=dtype, generator=torch.Generator().manual_seed(0)))
        leaf, *before = (each.detach().requires_grad_() for each in (inputs, *state))
        outputs, final = forward(leaf, LSTMState(*before), reset)
        assert isinstance(final, LSTMState)
        late = (weights * outputs)[torch.tensor([4, 7, 4]), torch.arange(B)].sum() + (final.h * final.c).sum()
        found.append((outputs, *final, *torch.autograd.grad(late, [leaf, *before, *layer.parameters()])))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    _, _, _, at_inputs, *at_state = found[0][:6]
    assert all(not at_inputs[:last, b].any() and at_inputs[last:, b].all() for b, last in enumerate([4, 7, 4]))
    assert not any(each.any() for each in at_state)


@kinds
def test_adjoint_is_zero_across_a_reset(kind: str) -> None:
    """Adjoint of the last loss: exactly 0 before a sequence's last reset, equal to autograd's elsewhere.

    By the layers' own recursions and by the generic one.
    """
    model, batch = make_model(kind, 2, learnt=True), batch_with_resets("last")
    assert batch.reset is not None
    predictions, states = run(kind, model, batch, beginning(kind, model))
    error(predictions, batch).backward()
    _, _, records = model(batch.inputs, model.initial_state(B), batch.resets)
    top = records[-1].outputs.detach().requires_grad_()
    (seed,) = torch.autograd.grad(loss(model.readout(top), batch), top)
    for level, found in enumerate(model.gradients(records, seed)):
        parts = len(states[0][level])
        expected = [torch.stack([gradient_at(state[level][part]) for state in states]) for part in range(parts)]
        for got, total in zip(leaves(found.states.states), expected, strict=True):
            torch.testing.assert_close(got, total, rtol=1e-10, atol=1e-14)
        for b, last in enumerate([4, 7, 4]):
            assert not found.states.hidden[:last, b].any()
            assert kind == "irnn" or found.states.hidden[last:, b].any()
        assert found.states.resets is not None
        learnt = [gradient_at(parameter) for name, parameter in model.named_parameters() if name.startswith("initial.")]
        for got, both, total in zip(
            leaves(found.states.resets),
            leaves(found.states.initial),
            learnt[level * parts : (level + 1) * parts],
            strict=True,
        ):
            torch.testing.assert_close((got + both).sum(0, keepdim=True), total, rtol=1e-10, atol=1e-14)
    layer = list(model.levels)[1]
    own, generic = layer.adjoint(records[1], seed), Layer.adjoint(layer, records[1], seed)
    assert own.resets is not None
    assert generic.resets is not None
    pairs = zip(leaves(own.states) + leaves(own.resets), leaves(generic.states) + leaves(generic.resets), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
    several = layer.adjoint(records[1], torch.cat([seed, 2 * seed], 1))
    torch.testing.assert_close(several.hidden[:, B:], 2 * own.hidden, rtol=1e-10, atol=1e-14)
    assert not jacobian_products(layer, records[1], sequence=0)[:4].any()
    alone = Batch(batch.inputs[4:], batch.targets[4:])
    after = model(alone.inputs, model.initial_state(B))[2][1]
    torch.testing.assert_close(
        lyapunov_exponents(layer, records[1], num_exponents=2), lyapunov_exponents(layer, after, num_exponents=2)
    )


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm"])  # relu may be 0 by itself
def test_lags_count_from_the_reset(kind: str) -> None:
    """The flow by lag is 0 beyond a sequence's last reset; adaptive truncation does not count such lags as samples."""
    model, batch = make_model(kind, 2), batch_with_resets("last")
    for flow in exact_flows(model, loss, batch, model.initial_state(B), num_sequences=B):
        for b, last in enumerate([4, 7, 4]):
            reaches = flow.by_lag["h"][:, b] > 0
            assert reaches.tolist() == [lag < T - last for lag in range(T)]
    gradients = gradients_by_lag(model, loss, batch, model.initial_state(B))
    counted = reached(batch, gradients.norm(dim=2, keepdim=True)).squeeze(2)
    assert counted.sum(0).tolist() == [T - 4, T - 7, T - 4]
    assert torch.equal(gradients.norm(dim=2) > 0, counted > 0)


@kinds
def test_evaluation_and_carry(kind: str) -> None:
    """Two batches of a stream score as the episodes do; sequence 1 begins with the second batch, the others go on."""
    model, whole = make_model(kind, 2, learnt=True), batch_with_resets("none")
    assert whole.reset is not None
    batches = [whole.between(0, 7), whole.between(7, T)]
    evaluation = Evaluation(FixedBatches(train=batches))
    for batch in batches:
        evaluation.add(model, batch)
    expected = error(run(kind, model, whole, beginning(kind, model))[0], whole)
    torch.testing.assert_close(evaluation.scores()["loss"], expected.detach())
    carry = Carry()
    carry.keep(model.advance(batches[0].inputs, model.initial_state(B), batches[0].resets))
    state = leaves(carry.state_for(model, batches[1]))
    fresh, kept = leaves(model.initial_state(B)), leaves(carry.state or ())
    for got, new, old in zip(state, fresh, kept, strict=True):
        assert torch.equal(got, torch.stack([old[0], new[1], old[2]]))


@pytest.mark.parametrize("make", [LRU, MinGRU])
@pytest.mark.parametrize("learnt", [False, True])
def test_diagonal_recurrences(make: Any, learnt: bool) -> None:
    """The scan with resets against the episodes run apart; its adjoint against the generic one."""
    model = SequenceModel(make, input_size=2, output_size=2, hidden_size=4, num_layers=2, learnt_initial_state=learnt)
    for parameter in model.initial or ():
        nn.init.normal_(parameter)
    batch = batch_with_resets()
    exact = apart(Full(), model, batch)
    for estimator in (Full(), Full(4), Chunked(T, update="sequence"), RTRL(4, update="sequence")):
        assert oracles.relative_error(estimated(estimator, model, batch), exact) < 1e-10, estimator
    by_hand = manual_gradients(model, loss, batch, model.initial_state(B))
    assert oracles.relative_error(by_hand, {name: exact[name] for name in by_hand}) < 1e-10
    _, _, records = model(batch.inputs, model.initial_state(B), batch.resets)
    seed = torch.randn(T, 2 * B, 4)
    for layer, record in zip(model.levels, records):
        own, generic = layer.adjoint(record, seed), Layer.adjoint(layer, record, seed)
        for one, other in zip(own, generic, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
