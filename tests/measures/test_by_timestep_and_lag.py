"""Gradients by timestep and lag in training, against autograd of the unrolled graph."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import flow_oracle, oracles
from support.layer_kinds import KINDS as LAYERS
from torch import Tensor

from bptt.estimators import Adaptive, Chunked, Full, Randomized, Sliding, Update
from bptt.estimators.base import Estimator
from bptt.measures import LayerFlow, Pass, PassRecorder, by_timestep_and_lag
from bptt.model import SequenceModel
from bptt.shapes import leaves
from bptt.tasks.base import Batch

pytestmark = pytest.mark.usefixtures("float64")

T, B, D, V, H = 11, 4, 3, 2, 6
kinds = pytest.mark.parametrize("kind", LAYERS)

ESTIMATORS: dict[str, tuple[Estimator, list[int]]] = {  # and the timesteps before which each of them cuts
    "chunks": (Chunked(4, ragged="last"), [4, 8]),
    "accumulated chunks": (Chunked(4, update="sequence", ragged="last"), [4, 8]),
    "full in segments": (Full(3), []),
    "full at once": (Full(100), []),
    "sliding": (Sliding(2, 5), []),
    "sliding by more": (Sliding(4, 5), []),
}
estimators = pytest.mark.parametrize("name", ESTIMATORS)
LOSSES = ("every step", "last step", "early steps", "some sequences")


def squared(predictions: Tensor, batch: Batch) -> Tensor:
    """Summed over V, mean inside the mask."""
    errors = (predictions - batch.targets).square().sum(-1)
    return errors.mean() if batch.mask is None else errors[batch.mask].mean()


def network(kind: str, num_layers: int, dropout: float = 0.0, **options: Any) -> SequenceModel:
    return SequenceModel(
        LAYERS[kind],
        input_size=D,
        output_size=V,
        hidden_size=H,
        num_layers=num_layers,
        dropout=dropout,
        **options,
    )


def example(loss: str = "every step", length: int = T) -> Batch:
    mask = torch.ones(length, B, dtype=torch.bool)
    if loss == "last step":
        mask[:-1] = False
    elif loss == "early steps":
        mask[length // 2 :] = False
    elif loss == "some sequences":
        mask = torch.rand(length, B) < 0.5
        mask[0] = mask[-1] = torch.arange(B) % 2 == 1
    return Batch(torch.randn(length, B, D), torch.randn(length, B, V), None if loss == "every step" else mask)


class Look(NamedTuple):
    """One update, what was watched of it, and the state it began with."""

    update: Update
    passes: list[Pass]
    flows: list[LayerFlow]
    before: Any


def looks(model: SequenceModel, estimator: Estimator, batch: Batch, n: int = B, **options: Any) -> Iterator[Look]:
    state = model.initial_state(B)
    with PassRecorder(model, num_sequences=n, **options) as watch:
        for update in estimator.updates(model, squared, batch, state):
            if update.weight:
                passes = watch.take(update.passes)
                yield Look(
                    update, passes, by_timestep_and_lag(model, passes, factor=B, lag_factor=B, num_losses=1), state
                )
            state = update.state


def expected(
    kind: str,
    model: SequenceModel,
    batch: Batch,
    look: Look,
    cuts: Sequence[int],
    *,
    scale: float | None = None,
    factors: Mapping[int, float] | None = None,
) -> list[flow_oracle.Flow]:
    """From the first timestep that was looked at to the update's last one, per sequence.

    Each error of the update counts B times `scale`, or in the mean B times 1 / (number of errors).
    """
    update, begin = look.update, look.passes[0].start
    mask = torch.ones(T, B) if batch.mask is None else batch.mask.double()
    mask = mask[: update.stop].clone()
    mask[: update.start] = 0
    named = dict(model.named_parameters())
    levels = [oracles.layer_weights(model, f"layers.{level}.") for level in range(len(model.layers))]
    before = [tuple(leaves(state)) for state in look.before]
    if begin != update.start:
        with torch.no_grad():
            before = oracles.zero_states(kind, model, B)
            for time in range(begin):
                after = oracles.unroll(oracles.CELLS[kind], levels, batch.inputs[time : time + 1], before)
                before = [layer[-1] for layer in after]
    masks = [_mask(look, level) for level in range(_num_masks(look))]
    return flow_oracle.flows(
        oracles.CELLS[kind],
        levels,
        (named["readout.weight"], named["readout.bias"]),
        batch.inputs[begin : update.stop],
        batch.targets[begin : update.stop],
        mask[begin:] * B * (1 / mask.sum() if scale is None else scale),
        before,
        cuts=[cut - begin for cut in cuts if begin < cut < update.stop],
        factors={t - begin: factor for t, factor in (factors or {}).items()},
        masks=masks,
    )


def _mask(look: Look, level: int) -> Tensor:
    """The dropout mask above a layer at all timesteps that were looked at."""
    return torch.cat([mask for each in look.passes if (mask := each.records[level].mask) is not None])


def _num_masks(look: Look) -> int:
    return sum(record.mask is not None for record in look.passes[0].records)


def assert_same(flows: list[LayerFlow], truth: list[flow_oracle.Flow]) -> None:
    """Timesteps after the last loss are not measured and have no gradient."""
    with_last_loss = truth[-1].by_lag[0][0] > 0
    for got, right in zip(flows, truth, strict=True):
        stop = len(got.by_timestep["h"])
        assert not any(part[stop:].any() for part in right.by_timestep)
        for norms, whole in zip(got.by_timestep.values(), right.by_timestep, strict=True):
            torch.testing.assert_close(norms, whole[:stop], rtol=1e-10, atol=1e-13)
        for norms, whole in zip(got.by_lag.values(), right.by_lag, strict=True):
            torch.testing.assert_close(norms[:, with_last_loss], whole[:, with_last_loss], rtol=1e-10, atol=1e-13)
            assert norms[:, ~with_last_loss].isnan().all() or not with_last_loss.any()


@kinds
@estimators
@pytest.mark.parametrize(("loss", "num_layers"), [("every step", 2), ("last step", 1)])
def test_every_estimator_and_layer(kind: str, name: str, loss: str, num_layers: int) -> None:
    model, batch, (estimator, cuts) = network(kind, num_layers), example(loss), ESTIMATORS[name]
    found = list(looks(model, estimator, batch))
    for look in found:
        truth = expected(kind, model, batch, look, cuts)
        assert_same(look.flows, truth)
        assert len(look.flows[0].by_timestep["h"]) == look.update.stop - look.flows[0].start
        names = ["h", "c"] if kind == "lstm" else ["h"]
        assert all(list(flow.by_timestep) == list(flow.by_lag) == names for flow in look.flows)
        assert [flow.transport for flow in look.flows] == pytest.approx([t.transport for t in truth], rel=1e-9)
        slopes = [slope(kind, t.outputs) for t in truth]
        assert [flow.saturation for flow in look.flows] == pytest.approx([float(s.mean()) for s in slopes])
    updates = {"chunks": 3, "sliding": 6, "sliding by more": 3}
    assert len(found) == (updates.get(name, 1) if loss == "every step" else 1)


def slope(kind: str, outputs: Tensor) -> Tensor:
    """The activation's derivative; linear recurrences have none."""
    if kind in ("lru", "mingru"):
        return torch.ones_like(outputs)
    return (outputs > 0).double() if kind == "irnn" else 1 - outputs**2


@pytest.mark.parametrize("kind", ["irnn", "lstm"])
@estimators
@pytest.mark.parametrize("loss", ["early steps", "some sequences"])
def test_masks(kind: str, name: str, loss: str) -> None:
    """Losses that end before the batch does, and losses that only some of the sequences have."""
    model, batch, (estimator, cuts) = network(kind, 2), example(loss), ESTIMATORS[name]
    for look in looks(model, estimator, batch):
        assert_same(look.flows, expected(kind, model, batch, look, cuts))


@pytest.mark.parametrize("size", [1, 2, 4, 5, 100])
@pytest.mark.parametrize("last", [0, 4, T - 1])
def test_every_timestep_of_an_update_is_there_whatever_the_segments(size: int, last: int) -> None:
    """Zeros come after the last loss, although segments without a loss are not passed through with a graph."""
    torch.manual_seed(3)
    model, batch = network("gru", 2), example()
    batch.mask = torch.zeros(T, B, dtype=torch.bool)
    batch.mask[last] = True
    found = []
    for estimator in (Full(size), Full(100), Chunked(T), Chunked(size, update="sequence")):
        with PassRecorder(model, num_sequences=B) as watch:
            (update,) = estimator.updates(model, squared, batch, model.initial_state(B))
            found.append(by_timestep_and_lag(model, watch.take(update.passes), stop=update.stop))
    for flows in found:
        for flow, whole in zip(flows, found[1], strict=True):
            assert flow.by_timestep["h"].shape == (T - flow.start, B)
            assert not flow.by_timestep["h"][last + 1 - flow.start :].any()
            if flows is not found[3]:  # chunks cut the gradient
                torch.testing.assert_close(flow.by_timestep, whole.by_timestep, rtol=1e-10, atol=1e-13)


@kinds
@pytest.mark.parametrize("name", [name for name in ESTIMATORS if not name.startswith("sliding")])
def test_dropout(kind: str, name: str) -> None:
    """The gradient goes through the very masks of the forward pass, in the update's losses and in the last one's."""
    model, batch, (estimator, cuts) = network(kind, 3, dropout=0.4), example(), ESTIMATORS[name]
    for look in looks(model, estimator, batch):
        masks = _mask(look, 0)
        assert set(masks.unique().tolist()) == {0, 1 / 0.6}
        assert_same(look.flows, expected(kind, model, batch, look, cuts))


@pytest.mark.parametrize("update", ["truncation", "sequence"])
@pytest.mark.parametrize("loss", ["every step", "last step"])
@pytest.mark.parametrize("seed", range(4))
def test_randomized_truncation(update: Any, loss: str, seed: int) -> None:
    """λ_t is that of the estimate, made larger at every step that is not cut; φ_k that of the loss, as it is."""
    options: dict[str, Any] = {"block": 2, "update": update, "seed": seed}
    model, batch = network("lstm", 2), example(loss)
    draws = list(Randomized(4, **options).truncations(T))
    cuts = [stop for _, stop, factor in draws if factor == 0]
    factors = {stop: factor for _, stop, factor in draws if factor}
    count = B * (T if loss == "every step" else 1)
    scale = 1 / count if update == "sequence" else 1 / (count * 4 / T)
    for look in looks(model, Randomized(4, **options), batch):
        by_timestep = expected("lstm", model, batch, look, cuts, scale=scale, factors=factors)
        by_lag = expected("lstm", model, batch, look, cuts, scale=scale)
        truth = [each._replace(by_lag=other.by_lag) for each, other in zip(by_timestep, by_lag)]
        assert_same(look.flows, truth)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("loss", ["every step", "last step"])
def test_adaptive_truncation(kind: str, loss: str) -> None:
    """The passes by which it chooses its chunk size are not those of the update."""
    model, batch = network(kind, 2), example(loss)
    estimator = Adaptive(0.5, lags=5, num_samples=3, every_n_batches=1)
    for look in looks(model, estimator, batch):
        assert [(each.start, each.start + each.num_timesteps) for each in look.passes] == list(look.update.passes)
        assert_same(look.flows, expected(kind, model, batch, look, []))


@given(
    kind=st.sampled_from(list(LAYERS)),
    length=st.integers(1, 9),
    size=st.integers(1, 10),
    way=st.sampled_from(["chunk", "sequence", "full"]),
    loss=st.sampled_from(LOSSES),
    num_layers=st.integers(1, 3),
    number=st.integers(0, 10**6),
)
def test_any_combination(kind: str, length: int, size: int, way: Any, loss: str, num_layers: int, number: int) -> None:
    torch.manual_seed(number)
    model, batch = network(kind, num_layers), example(loss, length)
    if batch.mask is not None and not batch.mask.any():
        return
    estimator: Estimator = Full(size) if way == "full" else Chunked(size, update=way, ragged="last")
    for look in looks(model, estimator, batch):
        cuts = () if way == "full" else range(size, length, size)
        assert_same(look.flows, expected(kind, model, batch, look, cuts))


@kinds
@pytest.mark.parametrize("name", ["full in segments", "sliding", "sliding by more"])
@pytest.mark.parametrize("loss", ["every step", "last step"])
def test_single_precision(kind: str, name: str, loss: str) -> None:
    """Has kernels of its own, whose outputs may get no gradient at all where only the final state passes one on."""
    model, batch, (estimator, _) = network(kind, 2), example(loss), ESTIMATORS[name]
    exact = list(looks(model, estimator, batch))
    batch = Batch(batch.inputs.float(), batch.targets.float(), batch.mask)
    rounded = list(looks(model.float(), estimator, batch))
    for look, other in zip(rounded, exact, strict=True):
        for got, right in zip(look.flows, other.flows, strict=True):
            for part, norms in right.by_timestep.items():
                torch.testing.assert_close(got.by_timestep[part], norms, rtol=1e-4, atol=1e-7)
            for part, norms in right.by_lag.items():
                torch.testing.assert_close(got.by_lag[part], norms, rtol=1e-4, atol=1e-7)
            assert got.borders == right.borders


def test_factor_of_the_batch_size_gives_the_gradient_of_each_sequence() -> None:
    """Alone in a batch, where no mean over the batch divides it, a sequence has the same gradient."""
    model, batch = network("gru", 2), example()
    (look,) = looks(model, Full(), batch)
    for index in range(B):
        alone = batch.columns(slice(index, index + 1))
        with PassRecorder(model, num_sequences=1) as watch:
            (update,) = Full().updates(model, squared, alone, model.initial_state(1))
            flows = by_timestep_and_lag(model, watch.take(update.passes), num_losses=1)
        for got, right in zip(look.flows, flows):
            torch.testing.assert_close(got.by_timestep["h"][:, [index]], right.by_timestep["h"])
            torch.testing.assert_close(got.by_lag["h"][:, [index]], right.by_lag["h"])


def test_what_the_losses_were_divided_by_gives_the_gradient_of_one_loss() -> None:
    """It does not depend on the other losses of the update, so that chunk sizes are comparable."""
    model, batch = network("gru", 2), example()
    found = []
    for size in (1, 4, 11):
        with PassRecorder(model, num_sequences=B) as watch:
            for update in Chunked(size).updates(model, squared, batch, model.initial_state(B)):
                flows = by_timestep_and_lag(
                    model, watch.take(update.passes), lag_factor=update.denominator, num_losses=1
                )
        found.append([flow.by_lag["h"][0] for flow in flows])  # of the last timestep
    predictions, _, records = model(batch.inputs, model.initial_state(B))
    error = ((predictions[-1] - batch.targets[-1]) ** 2).sum()
    (top,) = torch.autograd.grad(error, [records[-1].outputs])
    torch.testing.assert_close(found[0][-1], top[-1].norm(dim=-1))
    for other in found[1:]:
        for one, each in zip(found[0], other):
            torch.testing.assert_close(one, each)


def test_transport_is_of_the_timesteps_that_have_a_gradient() -> None:
    """Timesteps without a loss at the end of a chunk take no part in it."""
    model, batch = network("gru", 2), example()
    (whole,) = looks(model, Chunked(6, update="sequence"), batch.between(0, 6))
    later = torch.arange(T)[:, None].expand(T, B) < 6
    (masked,) = looks(model, Chunked(T), Batch(batch.inputs, batch.targets, later))
    for one, other in zip(whole.flows, masked.flows):
        assert one.transport == pytest.approx(other.transport)
        assert 0 < one.transport < 1


@kinds
@pytest.mark.parametrize("name", ["chunks", "accumulated chunks", "full in segments", "sliding by more"])
@pytest.mark.parametrize("loss", ["every step", "some sequences"])
def test_every_loss_has_a_curve_of_its_own(kind: str, name: str, loss: str) -> None:
    """The one that it has as the last loss, where timesteps after it have none; NaN beyond the cut."""
    model, batch, (estimator, cuts) = network(kind, 2), example(loss), ESTIMATORS[name]
    mask = torch.ones(T, B, dtype=torch.bool) if batch.mask is None else batch.mask
    for look in looks(model, estimator, batch):
        flows = by_timestep_and_lag(model, look.passes, lag_factor=look.update.denominator, num_losses=3)
        assert [flow.losses for flow in flows] == [flows[0].losses] * 2
        assert flows[0].losses[-1] == max(t for t in range(look.update.start, look.update.stop) if mask[t].any())
        for number, s in enumerate(flows[0].losses):
            alone = look._replace(update=look.update._replace(start=s, stop=s + 1))
            truth = expected(kind, model, batch, alone, cuts, scale=1 / B)
            for flow, right in zip(flows, truth, strict=True):
                for found, whole in zip(flow.by_lag.values(), right.by_lag, strict=True):
                    curve = found[:, number * B : (number + 1) * B]
                    torch.testing.assert_close(curve[: len(whole), mask[s]], whole[:, mask[s]], rtol=1e-10, atol=1e-13)
                    assert curve[len(whole) :].isnan().all()
                    assert curve[:, ~mask[s]].isnan().all()


def test_the_mean_by_lag_is_over_the_sequences_with_a_loss() -> None:
    """One of four has a loss at the last timestep, and its curve is the mean."""
    model, batch = network("gru", 1), example("last step")
    assert batch.mask is not None
    batch.mask[-1, 1:] = False
    (look,) = looks(model, Full(), batch)
    (flow,) = look.flows
    torch.testing.assert_close(flow.mean_by_lag(), flow.by_lag["h"][:, 0], rtol=1e-12, atol=0)
    assert flow.mean_by_lag().min() > 0


def test_lag_reaches_as_far_as_the_estimator_lets_it() -> None:
    """Lags extend from the last loss back to the cut: 4 + 4 + 3 timesteps in chunks, all 11 in full."""
    model, batch = network("lstm", 2), example()
    assert [len(look.flows[0].by_lag["h"]) for look in looks(model, Chunked(4), batch)] == [4, 4, 3]
    assert [len(look.flows[0].by_lag["h"]) for look in looks(model, Chunked(4, update="sequence"), batch)] == [3]
    assert [len(look.flows[1].by_lag["h"]) for look in looks(model, Full(4), batch)] == [11]
    assert [len(look.flows[0].by_lag["h"]) for look in looks(model, Full(4), example("early steps"))] == [5]


def test_borders_are_where_the_gradient_is_cut() -> None:
    model, batch = network("elman", 1), example()
    (accumulated,) = looks(model, Chunked(4, update="sequence"), batch)
    assert accumulated.flows[0].borders == (4, 8)
    (full,) = looks(model, Full(4), batch)
    assert full.flows[0].borders == ()
    assert [(look.flows[0].start, look.flows[0].borders) for look in looks(model, Chunked(4), batch)] == [
        (0, ()),
        (4, ()),
        (8, ()),
    ]


def test_chunk_without_loss_between_others_keeps_its_place() -> None:
    """No gradient comes to its timesteps, and those after it are not moved forward in time."""
    batch = example()
    mask = torch.ones(T, B, dtype=torch.bool)
    mask[4:8] = False
    batch = Batch(batch.inputs, batch.targets, mask)
    model = network("gru", 1)
    (look,) = looks(model, Chunked(4, update="sequence"), batch)
    assert_same(look.flows, expected("gru", model, batch, look, [4, 8]))


@kinds
@pytest.mark.parametrize("size", [3, 100])
def test_no_gradient_crosses_a_reset_and_none_counts_twice_where_segments_meet(kind: str, size: int) -> None:
    """Autograd of a graph that is unrolled cell by cell, with a state of zeros at resets."""
    model, batch = network(kind, 1), example()
    batch.reset = torch.zeros(T, B, dtype=torch.bool)
    batch.reset[[1, 4, 5, 9], [0, 1, 0, 2]] = True
    (look,) = looks(model, Full(size), batch)
    weights, (now,) = oracles.layer_weights(model, "layers.0."), oracles.zero_states(kind, model, B)
    states, direct = [], []
    for t in range(T):
        now = tuple(torch.where(batch.reset[t].unsqueeze(1), 0, part) for part in now)
        now = oracles.CELLS[kind](weights, batch.inputs[t], now)
        states.append(now)
        direct.append(now[0].view_as(now[0]))
    predictions = torch.stack(direct) @ model.get_parameter("readout.weight").T + model.get_parameter("readout.bias")
    loss = B * squared(predictions, batch)
    for number, found in enumerate(look.flows[0].by_timestep.values()):
        at = [state[number] for state in states]
        totals = torch.stack(torch.autograd.grad(loss, at, retain_graph=True, materialize_grads=True))
        torch.testing.assert_close(found, totals.norm(dim=-1), rtol=1e-10, atol=1e-13)
    totals, own = (
        torch.stack(torch.autograd.grad(loss, at, retain_graph=True)) for at in ([s[0] for s in states], direct)
    )
    share = (totals - own).norm(dim=-1) / totals.norm(dim=-1)
    assert look.flows[0].transport == pytest.approx(float(share.mean()))


def test_last_loss_only_equals_the_last_step_of_all_losses() -> None:
    """With a loss only at the last timestep, both are equal: λ_{T−k} is the gradient at lag k."""
    for kind in LAYERS:
        (look,) = looks(network(kind, 2), Full(4), example("last step"))
        for flow in look.flows:
            for name, norms in flow.by_lag.items():
                torch.testing.assert_close(flow.by_timestep[name].flip(0), norms)


def test_learnt_initial_state_and_embedding_change_nothing() -> None:
    torch.manual_seed(3)
    model, batch = network("lstm", 2, learnt_initial_state=True, embedding_size=4), example()
    assert model.initial is not None
    with torch.no_grad():
        for parameter in model.initial:
            parameter.normal_()
    (look,) = looks(model, Full(4), batch)
    features = batch.inputs @ dict(model.named_parameters())["encoder.weight"].T
    truth = expected("lstm", model, Batch(features.detach(), batch.targets), look, [])
    assert_same(look.flows, truth)
