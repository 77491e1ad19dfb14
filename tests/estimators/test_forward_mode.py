"""Forward mode: what its estimators have in common; RTRL, SnAp-1 and UORO against autograd and masked recursions."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracles
from support.fixed_batches import random_batch
from support.gradients import gradient_at
from support.masked_batches import KINDS, TwoSpeeds, loss, make_mask, make_model, masked_batch, masks
from torch import Tensor, nn

from bptt.estimators import RFLO, RTRL, UORO, EProp, Estimator, SnAp
from bptt.layers import Influence, Layer
from bptt.model import SequenceModel
from bptt.shapes import leaves, map_state
from bptt.tasks import Batch
from bptt.tasks.influence_balancing import InfluenceBalancing

pytestmark = pytest.mark.usefixtures("float64")
kinds = pytest.mark.parametrize("kind", KINDS)
classes = pytest.mark.parametrize("cls", [RTRL, SnAp, UORO, RFLO])
few = settings(max_examples=5)
cases = given(
    timesteps=st.integers(1, 9),
    batch_size=st.integers(1, 3),
    stride=st.integers(1, 10),
    pattern=masks,
    learnt=st.booleans(),
)


def only_update(estimator: Estimator, model: SequenceModel, batch: Batch, state: Any = None, *backward: Any) -> Any:
    model.zero_grad()
    start = model.initial_state(batch.batch_size) if state is None else state
    (update,) = estimator.updates(model, loss, batch, start, *backward)
    return update


def exact(kind: str, model: SequenceModel, batch: Batch, initial: Any = None) -> tuple[Tensor, dict[str, Tensor], Any]:
    """Loss, gradient and final state by autograd of the whole batch."""
    unrolled = oracles.run_model(kind, model, batch.inputs, initial)
    error = oracles.squared_error(unrolled.predictions, batch.targets, batch.mask)
    final = [leaf.detach() for layer in unrolled.final for leaf in layer]
    return error.detach(), oracles.gradients(error, model), final


def part(batch: Batch, start: int, stop: int) -> Batch:
    mask = None if batch.mask is None else batch.mask[start:stop]
    return Batch(batch.inputs[start:stop], batch.targets[start:stop], mask)


@kinds
@pytest.mark.parametrize("num_layers", [1, 2])
@few
@cases
def test_rtrl_is_full_bptt(
    kind: str, num_layers: int, timesteps: int, batch_size: int, stride: int, pattern: str, learnt: bool
) -> None:
    model, batch = make_model(kind, num_layers, learnt=learnt), masked_batch(pattern, timesteps, batch_size, stride)
    update = only_update(RTRL(stride, update="sequence"), model, batch)
    error, gradient, final = exact(kind, model, batch)
    assert oracles.relative_error(oracles.grads(model), gradient) < 1e-10
    torch.testing.assert_close(update.loss, error, rtol=1e-10, atol=0)
    torch.testing.assert_close(leaves(update.state), final, rtol=1e-10, atol=1e-12)
    weight = timesteps * batch_size if batch.mask is None else int(batch.mask.sum())
    assert update[1:4] == (weight, 0, timesteps)
    assert update.passes == ()


@kinds
@pytest.mark.parametrize("embedding_size", [None, 3])
@pytest.mark.parametrize("pattern", ["none", "last"])
def test_rtrl_of_tokens_is_full_bptt(kind: str, embedding_size: int | None, pattern: str) -> None:
    """One-hot or embedded."""
    model = SequenceModel(
        KINDS[kind], input_size=5, output_size=2, hidden_size=4, num_layers=2, embedding_size=embedding_size
    )
    features = masked_batch(pattern, 7, 2, 3)
    tokens = torch.randint(5, (7, 2), dtype=torch.uint8)
    only_update(RTRL(3, update="sequence"), model, Batch(tokens, features.targets, features.mask))
    same = Batch(oracles.one_hot(tokens, 5), features.targets, features.mask)
    assert oracles.relative_error(oracles.grads(model), exact(kind, model, same)[1]) < 1e-10
    only_update(RTRL(3, update="sequence"), model, same)
    assert oracles.relative_error(oracles.grads(model), exact(kind, model, same)[1]) < 1e-10


@kinds
@few
@cases
def test_rtrl_by_stride_reaches_back_to_the_start(
    kind: str, timesteps: int, batch_size: int, stride: int, pattern: str, learnt: bool
) -> None:
    """The gradient of each stride's mean loss, through all timesteps before and through the parameters they had.

    Autograd's twin gives every stride a copy of the parameters as they were, and adds up the copies' gradients.
    """
    model = make_model(kind, 2, learnt=learnt)
    batch = masked_batch(pattern, timesteps, batch_size, stride)
    updates = RTRL(stride).updates(model, loss, batch, model.initial_state(batch_size))
    twins: list[SequenceModel] = []
    state = None
    for start in range(0, timesteps, stride):
        stop = min(start + stride, timesteps)
        here = part(batch, start, stop)
        twins.append(copy.deepcopy(model))
        unrolled = oracles.run_model(kind, twins[-1], here.inputs, state)
        state = unrolled.final
        update = next(updates)
        weight = (stop - start) * batch_size if here.mask is None else int(here.mask.sum())
        assert update[1:4] == (weight, start, stop)
        expected_state = [leaf.detach() for layer in state for leaf in layer]
        torch.testing.assert_close(leaves(update.state), expected_state, rtol=1e-9, atol=1e-11)
        assert torch.is_grad_enabled()
        if not weight:
            assert float(update.loss) == 0
            assert all(parameter.grad is None for parameter in model.parameters())
            continue
        error = oracles.squared_error(unrolled.predictions, here.targets, here.mask)
        sources = [parameter for twin in twins for parameter in twin.parameters()]
        found = iter(torch.autograd.grad(error, sources, retain_graph=True, materialize_grads=True))
        copies = [{name: next(found) for name, _ in model.named_parameters()} for _ in twins]
        gradient = {name: torch.stack([each[name] for each in copies]).sum(0) for name in copies[0]}
        torch.testing.assert_close(update.loss, error.detach(), rtol=1e-9, atol=0)
        assert oracles.relative_error(oracles.grads(model), gradient) < 1e-9
        oracles.step_by_hand(model, oracles.grads(model), 0.1)
        model.zero_grad()
    assert next(updates, None) is None


def test_rtrl_sums_near_and_far_influences() -> None:
    """The sums over 1, 10, … timesteps of Tallec & Ollivier's network, whose sign turns after 40."""
    model = SequenceModel(Influence, input_size=1, output_size=23, hidden_size=23, readout="identity")
    task = InfluenceBalancing(length=100, batch_size=1, train_batches=1)
    sums = []
    for update in RTRL(1).updates(model, task.loss, task.batch("train", 0), model.initial_state(1)):
        sums.append(float(oracles.grads(model)["layers.0.theta"] / (leaves(update.state)[0][0, 0] - 1)))
        model.zero_grad()
    found = [sums[k - 1] for k in (1, 10, 16, 30, 40, 50, 100)]
    assert found == pytest.approx([1, 10, 15.37, 9.87, 0.566, -4.75, -6], abs=0.005)
    assert [k for k, value in enumerate(sums, 1) if value < 0] == list(range(41, 101))


@kinds
def test_rtrl_from_a_carried_state(kind: str) -> None:
    model, batch = make_model(kind, 2), masked_batch("random", 8, 3, 4)
    state = map_state(torch.randn_like, model.initial_state(3))
    only_update(RTRL(3, update="sequence"), model, batch, state)
    gradient = exact(kind, model, batch, [tuple(leaves(layer)) for layer in state])[1]
    assert oracles.relative_error(oracles.grads(model), gradient) < 1e-10


def test_rtrl_where_some_sequences_go_on_and_others_begin_with_a_learnt_state() -> None:
    model, batch = make_model("lstm", 2, learnt=True), masked_batch("random", 6, 3, 4)
    begins = torch.tensor([[True], [False], [True]])
    carried = map_state(torch.randn_like, model.initial_state(3))
    state = map_state(lambda own, other: torch.where(begins, own, other), model.initial_state(3), carried)
    only_update(RTRL(4, update="sequence"), model, batch, state)
    gradient = exact("lstm", model, batch, [tuple(leaves(layer)) for layer in state])[1]
    assert gradient["initial.1"].any()
    assert oracles.relative_error(oracles.grads(model), gradient) < 1e-10


@classes
def test_frozen_parameters_get_no_gradient(cls: Any) -> None:
    """Only the readout is trained (a reservoir), or all but one layer."""
    model, batch = make_model("gru", 2), masked_batch("random", 7, 2, 4)
    expected = exact("gru", model, batch)[1]
    model.layers.requires_grad_(False)
    only_update(cls(3, update="sequence"), model, batch)
    got = oracles.grads(model)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name] * name.startswith("readout"), rtol=1e-10, atol=1e-13)
    if cls is RTRL:
        model.layers[0].requires_grad_(True)
        only_update(cls(3, update="sequence"), model, batch)
        got = oracles.grads(model)
        kept = {name: value * ("layers.1" not in name) for name, value in expected.items()}
        assert oracles.relative_error(got, kept) < 1e-10


class Separate(Layer):
    """h_t = relu(W x_t + w ∘ h_{t-1} + b): units that do not feed one another."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.weight = nn.Parameter(torch.randn(input_size, hidden_size))
        self.own = nn.Parameter(0.5 + torch.rand(hidden_size))
        self.bias = nn.Parameter(torch.randn(hidden_size))

    def initial_state(self, batch_size: int) -> Tensor:
        return self.own.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return torch.relu(input @ self.weight + self.own * state + self.bias)


def two_speeds(weights: list[Tensor], inputs: Tensor) -> list[Tensor]:
    p, outputs = inputs.new_zeros(inputs.shape[1], weights[0].shape[1]), []
    for x in inputs:
        outputs.append(torch.tanh(x @ weights[0] + p))
        p = (p + outputs[-1]) / 2
    return outputs


def separate(weights: list[Tensor], inputs: Tensor) -> list[Tensor]:
    h, outputs = inputs.new_zeros(inputs.shape[1], len(weights[1])), []
    for x in inputs:
        h = (x @ weights[0] + weights[1] * h + weights[2]).clamp(min=0)
        outputs.append(h)
    return outputs


# SnAp: p is fed by its own unit's h alone, so nothing is lost in either cell.
@pytest.mark.parametrize("cls", [RTRL, SnAp])
@pytest.mark.parametrize(("cell", "run"), [(TwoSpeeds, two_speeds), (Separate, separate)])
@pytest.mark.parametrize("pattern", ["none", "last", "random"])
def test_cell_of_ones_own(cls: Any, cell: type[Layer], run: Callable[..., list[Tensor]], pattern: str) -> None:
    model = SequenceModel(cell, input_size=2, output_size=2, hidden_size=4)
    batch = masked_batch(pattern, 10, 3, 3)
    only_update(cls(4, update="sequence"), model, batch)
    outputs = run(list(model.layers.parameters()), batch.inputs)
    weight, bias = map(model.get_parameter, ("readout.weight", "readout.bias"))
    predictions = torch.stack([h @ weight.T + bias for h in outputs])
    expected = oracles.gradients(oracles.squared_error(predictions, batch.targets, batch.mask), model)
    assert oracles.relative_error(oracles.grads(model), expected) < 1e-10


@pytest.mark.parametrize("kind", ["elman", "irnn", "gru"])
@few
@cases
def test_snap_of_one_unit_is_exact(
    kind: str, timesteps: int, batch_size: int, stride: int, pattern: str, learnt: bool
) -> None:
    """An LSTM is an exception: its o gate does not act on c within one timestep, but does later through h."""
    model = SequenceModel(KINDS[kind], input_size=2, output_size=2, hidden_size=1, learnt_initial_state=learnt)
    batch = masked_batch(pattern, timesteps, batch_size, stride)
    only_update(SnAp(stride, update="sequence"), model, batch)
    torch.testing.assert_close(oracles.grads(model), exact(kind, model, batch)[1], rtol=1e-10, atol=1e-13)


def acts(kind: str, parameter: str, layer: int, leaf: int) -> Callable[[Tensor, Tensor], Tensor]:
    """True if an entry in row r of a parameter acts on unit k of the layer's state within one timestep."""
    if parameter == "encoder.weight":
        return lambda r, k: torch.ones_like(r + k, dtype=torch.bool)
    head, number, *_ = parameter.split(".")
    if head == "initial":  # a row for each of the state's tensors, and one column a unit
        parts = 2 if kind == "lstm" else 1
        return lambda r, k: (r == k) & (int(number) == layer * parts + leaf)
    if int(number) != layer:
        return lambda r, k: torch.full_like(r + k, int(number) < layer, dtype=torch.bool)
    if kind == "lru" and "log_" in parameter:  # one of each for a pair of real and imaginary part
        return lambda r, k: r == k // 2
    size = 4
    only_h = kind == "lstm" and leaf == 1
    return lambda r, k: (r % size == k) & ~(only_h & (r // size == 3))


def masked_influence(kind: str, model: SequenceModel, batch: Batch) -> dict[str, Tensor]:
    """J_t = M ∘ (∂s_t/∂s_{t−1} J_{t−1}) + (∂s_t/∂θ)_direct, densely, from the oracle's cells, sequence by sequence."""
    named = dict(model.named_parameters())
    names = [name for name in named if not name.startswith("readout")]
    sources = [named[name] for name in names]
    depth, parts, size = oracles.num_layers(model), 2 if kind == "lstm" else 1, 4
    rows = []
    for layer in range(depth):
        for leaf in range(parts):
            columns = []
            for name, source in zip(names, sources):
                first = 1 if name.startswith("initial") else 0
                row = torch.arange(source.shape[first]).view(-1, *[1] * (source.dim() - 1 - first)).expand_as(source)
                columns.append(acts(kind, name, layer, leaf)(row.flatten()[None], torch.arange(size)[:, None]))
            rows.append(torch.cat(columns, 1))
    mask = torch.cat(rows)

    def jacobian(outputs: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        found = [
            torch.autograd.grad(out, inputs, retain_graph=True, allow_unused=True, materialize_grads=True)
            for out in outputs
        ]
        return torch.stack([torch.cat([each.flatten() for each in row]) for row in found])

    readout = [named["readout.weight"], named["readout.bias"]]
    predictions, pieces = [], []
    states = oracles.learnt_states if "initial.0" in named else oracles.zero_states
    for b in range(batch.batch_size):
        start = torch.cat([leaf.flatten() for layer in states(kind, model, 1) for leaf in layer])
        influence = jacobian(start, sources) if start.requires_grad else torch.zeros(mask.shape)
        now = start.detach()
        for t in range(batch.num_timesteps):
            now.requires_grad_()
            split = list(now.view(-1, 1, size))
            initial = [tuple(split[layer * parts : (layer + 1) * parts]) for layer in range(depth)]
            unrolled = oracles.run_model(kind, model, batch.inputs[t : t + 1, b : b + 1], initial)
            after = torch.cat([leaf.flatten() for layer in unrolled.final for leaf in layer])
            influence = jacobian(after, sources) + mask * (jacobian(after, [now]) @ influence)
            now = after.detach()
            top = unrolled.final[-1][0].detach().requires_grad_()
            predictions.append((b, t, top, top @ readout[0].T + readout[1]))
            pieces.append(influence[(depth - 1) * parts * size :][:size])
    whole = torch.stack([each[3] for each in predictions]).view(batch.batch_size, batch.num_timesteps, -1)
    error = oracles.squared_error(whole.transpose(0, 1), batch.targets, batch.mask)
    direct = torch.autograd.grad(error, [*(each[2] for each in predictions), *readout])
    total = torch.stack([row[0] @ piece for row, piece in zip(direct, pieces)]).sum(0)
    split = total.split([source.numel() for source in sources])
    found = {name: each.view_as(named[name]) for name, each in zip(names, split)}
    return found | {"readout.weight": direct[-2], "readout.bias": direct[-1]}


@kinds
@pytest.mark.parametrize(("num_layers", "embedding_size"), [(1, None), (1, 3), (2, None)])
def test_snap_is_a_masked_recursion(kind: str, num_layers: int, embedding_size: int | None) -> None:
    model = make_model(kind, num_layers, learnt=num_layers == 2, embedding_size=embedding_size)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    batch = masked_batch("random", 6, 2, 3)
    only_update(SnAp(4, update="sequence"), model, batch)
    got = oracles.grads(model)
    assert oracles.relative_error(got, masked_influence(kind, model, batch)) < 1e-10
    # Exact for one layer of real diagonal units, which send each other nothing. Parts of a complex unit do.
    error = oracles.relative_error(got, exact(kind, model, batch)[1])
    assert error < 1e-10 if kind == "mingru" and num_layers == 1 else error > 1e-3


def test_snap_sees_what_dead_or_saturated_units_depend_on() -> None:
    """The pattern is the equations', whatever the parameters and inputs at hand are."""
    for kind, bias in (("irnn", -5.0), ("lstm", 400.0), ("gru", -400.0)):
        model, batch = make_model(kind, 2), masked_batch("none", 6, 2, 3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.add_(bias * ("bias_hh" in name))
        only_update(SnAp(4, update="sequence"), model, batch)
        torch.testing.assert_close(oracles.grads(model), masked_influence(kind, model, batch), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("kind", "num_layers", "learnt"), [("elman", 1, False), ("lstm", 1, True), ("gru", 2, False)])
def test_uoro_is_unbiased(kind: str, num_layers: int, learnt: bool) -> None:
    """The mean over seeds lies within four standard errors of the exact gradient, in every direction tried.

    Every sequence has draws of its own, so a batch of 400 copies is 400 estimates at once.
    """
    model = SequenceModel(
        KINDS[kind], input_size=1, output_size=1, hidden_size=2, num_layers=num_layers, learnt_initial_state=learnt
    )
    mask = make_mask("random", 5, 3, 2)
    assert mask is not None
    batch = random_batch(5, 3, input_size=1, output_size=1, mask=mask)
    expected = torch.cat([value.flatten() for value in exact(kind, model, batch)[1].values()])
    many = Batch(batch.inputs.repeat(1, 400, 1), batch.targets.repeat(1, 400, 1), mask.repeat(1, 400))
    drawn = []
    for seed in range(25):
        only_update(UORO(2, update="sequence", seed=seed), model, many)
        drawn.append(torch.cat([value.flatten() for value in oracles.grads(model).values()]))
    samples = torch.stack(drawn)
    readout = [name.startswith("readout") for name, each in model.named_parameters() for _ in range(each.numel())]
    recurrent = ~torch.tensor(readout)
    along = expected * recurrent / (expected * recurrent).norm()
    directions = torch.cat([torch.eye(len(expected))[recurrent], torch.randn(10, len(expected)), along[None]])
    projected, wanted = samples @ directions.T, expected @ directions.T
    standard_error = projected.std(0) / len(samples) ** 0.5
    assert ((projected.mean(0) - wanted).abs() < 4 * standard_error + 1e-12).all()
    assert 0.001 * wanted[-1] < standard_error[-1] < 0.05 * wanted[-1], "random, but enough draws to tell a bias"
    own = samples[:, ~recurrent]
    torch.testing.assert_close(own, expected[~recurrent].expand_as(own), rtol=1e-10, atol=1e-13)


def test_uoro_draws_again_with_the_same_seed() -> None:
    model, batch = make_model("lstm"), masked_batch("random", 8, 2, 4)

    def draw(estimator: UORO) -> dict[str, Tensor]:
        only_update(estimator, model, batch)
        return oracles.grads(model)

    first, second, other = UORO(3, update="sequence", seed=5), UORO(4, update="sequence", seed=5), UORO(3, seed=6)
    other.update = "sequence"
    once = draw(first)
    assert oracles.relative_error(draw(second), once) < 1e-12
    assert oracles.relative_error(draw(other), once) > 1e-3
    kept = first.state_dict()
    assert all(isinstance(value, Tensor) for value in kept.values())
    again = draw(first)
    assert oracles.relative_error(again, once) > 1e-3
    other.load_state_dict({name: value.clone() for name, value in kept.items()})
    repeated = draw(other)
    assert all(torch.equal(repeated[name], again[name]) for name in again)


def test_uoro_goes_on_drawing_from_batch_to_batch() -> None:
    model, batch = make_model("gru"), masked_batch("none", 4, 2, 4)
    estimator = UORO(4, seed=0)
    only_update(estimator, model, batch)
    first = oracles.grads(model)
    only_update(estimator, model, batch)
    assert oracles.relative_error(oracles.grads(model), first) > 1e-3


@classes
@kinds
def test_states_and_loss_are_those_of_a_plain_pass(cls: Any, kind: str) -> None:
    """Updates tile the batch; nothing but gradients differs, and global random numbers and modes are left alone."""
    model, batch = make_model(kind, 2), masked_batch("lengths", 8, 3, 3)
    random, plain = torch.get_rng_state(), model(batch.inputs, model.initial_state(3))
    updates = list(cls(3).updates(model, loss, batch, model.initial_state(3)))
    assert [(update.start, update.stop) for update in updates] == [(0, 3), (3, 6), (6, 8)]
    weights = batch.weights()
    for update in updates:
        assert update.weight == sum(weights[update.start : update.stop])
        _, state, _ = model(batch.inputs[: update.stop], model.initial_state(3))
        torch.testing.assert_close(leaves(update.state), [leaf.detach() for leaf in leaves(state)])
        assert [type(layer) for layer in update.state] == [type(layer) for layer in state]
        kept = max(leaf.untyped_storage().nbytes() for leaf in leaves(update.state))  # and would be saved with it
        assert kept <= sum(leaf.nbytes for leaf in leaves(update.state))
        if update.weight:
            here = part(batch, update.start, update.stop)
            expected = oracles.squared_error(plain[0][update.start : update.stop], here.targets, here.mask)
            torch.testing.assert_close(update.loss, expected.detach())
        assert not any(leaf.requires_grad for leaf in [update.loss, *leaves(update.state)])
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model(batch.inputs, model.initial_state(3))[0], plain[0])


@classes
@kinds
def test_batch_without_loss_only_advances_the_state(cls: Any, kind: str) -> None:
    model = make_model(kind, 2, learnt=True)
    batch = random_batch(5, 2, mask=torch.zeros(5, 2, dtype=torch.bool))
    for update in ("chunk", "sequence"):
        updates = list(cls(3, update=update).updates(model, loss, batch, model.initial_state(2)))
        assert len(updates) == (2 if update == "chunk" else 1)
        assert all(each.weight == 0 and float(each.loss) == 0 for each in updates)
        assert all(parameter.grad is None for parameter in model.parameters())
        expected = [leaf.detach() for layer in oracles.run_model(kind, model, batch.inputs).final for leaf in layer]
        torch.testing.assert_close(leaves(updates[-1].state), expected)


@classes
@pytest.mark.parametrize("update", ["chunk", "sequence"])
def test_backward_may_scale_the_loss(cls: Any, update: Any) -> None:
    """`backward` receives the loss once for each stride with a loss. A power of two scales without rounding."""
    model, batch = make_model("lstm", 2, learnt=True), masked_batch("holes", 9, 2, 2)
    seen: list[float] = []

    def scaled(objective: Tensor) -> None:
        seen.append(objective.item())
        (1024 * objective).backward()

    found: list[list[tuple[Tensor, dict[str, Tensor]]]] = []
    for backward in (Tensor.backward, scaled):
        model.zero_grad()
        found.append([])
        for each in cls(2, update=update).updates(model, loss, batch, model.initial_state(2), backward):
            found[-1].append((each.loss, oracles.grads(model)))
    for (plain_loss, plain), (scaled_loss, gradient) in zip(*found):
        assert torch.equal(plain_loss, scaled_loss)
        assert all(torch.equal(gradient[name], 1024 * plain[name]) for name in plain)
    assert len(seen) == 2
    losses = [float(each) for each, _ in found[1]]
    assert sum(seen) == pytest.approx(sum(losses), rel=1e-12)


@classes
def test_every_parameter_has_a_gradient_after_each_backward(cls: Any) -> None:
    """Processes that average their gradients need this."""
    model, batch = make_model("gru", 2, learnt=True), masked_batch("none", 6, 2, 3)
    for _ in cls(2).updates(model, loss, batch, model.initial_state(2)):
        assert all(parameter.grad is not None for parameter in model.parameters())
        model.zero_grad()


@classes
def test_gradient_adds_to_what_is_there(cls: Any) -> None:
    model, batch = make_model("elman"), masked_batch("random", 6, 2, 3)
    only_update(cls(3, update="sequence"), model, batch)
    once = oracles.grads(model)
    list(cls(3, update="sequence").updates(model, loss, batch, model.initial_state(2)))
    assert oracles.relative_error(oracles.grads(model), {name: 2 * value for name, value in once.items()}) < 1e-14


@classes
def test_autocast_does_not_reach_the_influence(cls: Any) -> None:
    """States, influence, readout and loss keep the parameters' precision."""
    model, batch = make_model("lstm", 2).float(), masked_batch("random", 6, 2, 3)
    batch = Batch(batch.inputs.float(), batch.targets.float(), batch.mask)
    only_update(cls(3, update="sequence"), model, batch)
    plain = oracles.grads(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        only_update(cls(3, update="sequence"), model, batch)
    assert all(torch.equal(gradient, plain[name]) for name, gradient in oracles.grads(model).items())


@classes
def test_half_precision_parameters_are_followed_in_single_precision(cls: Any) -> None:
    model, batch = make_model("gru").bfloat16(), masked_batch("none", 12, 2, 3)
    batch = Batch(batch.inputs.bfloat16(), batch.targets.bfloat16())
    update = only_update(cls(3, update="sequence"), model, batch)
    assert {leaf.dtype for leaf in leaves(update.state)} == {torch.bfloat16}
    assert {gradient_at(parameter).dtype for parameter in model.parameters()} == {torch.bfloat16}
    if cls is not RTRL:
        return  # the other estimators are not exact
    got = {name: gradient.double() for name, gradient in oracles.grads(model).items()}
    twin = copy.deepcopy(model).double()
    gradient = exact("gru", twin, Batch(batch.inputs.double(), batch.targets.double()))[1]
    assert oracles.relative_error(got, gradient) < 0.02


@classes
def test_dropout_is_refused_in_training(cls: Any) -> None:
    model, batch = make_model("lstm", 2, dropout=0.5), masked_batch("none", 4, 2, 2)
    with pytest.raises(ValueError, match=r"dropout must be 0 in forward mode, got 0\.5; set model\.dropout=0, or use"):
        next(cls(2).updates(model, loss, batch, model.initial_state(2)))
    model.eval()
    assert len(list(cls(2).updates(model, loss, batch, model.initial_state(2)))) == 2


@pytest.mark.parametrize(
    ("cls", "kind", "num_layers", "rows"),
    [
        (RTRL, "elman", 1, 4),
        (RTRL, "lstm", 2, 16),
        (SnAp, "elman", 1, 1),
        (SnAp, "gru", 1, 1),
        (SnAp, "lstm", 1, 2),
        (SnAp, "lstm", 2, 10),  # of the lower layer: h and c of a unit, and all of the layer above
    ],
)
def test_influence_of_too_many_numbers_is_refused(cls: Any, kind: str, num_layers: int, rows: int) -> None:
    model, batch = make_model(kind, num_layers), masked_batch("none", 2, 3, 2)
    parameters = sum(parameter.numel() for parameter in model.layers.parameters())
    entries = 3 * rows * parameters
    only_update(cls(2, max_entries=entries), model, batch)
    expected = (
        rf"max_entries = {entries - 1} numbers, got {entries} = 3 sequences · {rows} states · {parameters} parameters; "
        r"use a smaller model or batch, estimator=uoro or chunked, or a larger estimator\.max_entries$"
    )
    with pytest.raises(ValueError, match=expected):
        only_update(cls(2, max_entries=entries - 1), model, batch)


def test_the_default_bound_refuses_rtrl_of_a_wide_network_alone() -> None:
    model = SequenceModel(KINDS["lstm"], input_size=2, output_size=2, hidden_size=192)
    batch = random_batch(1, 2)
    with pytest.raises(ValueError, match="max_entries = 100000000 numbers, got 115605504 = 2 sequences"):
        only_update(RTRL(1), model, batch)
    only_update(UORO(1), model, batch)


@classes
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 0}, "stride must be an integer >= 1, got 0"),
        ({"stride": 2.5}, r"stride must be an integer >= 1, got 2\.5"),
        ({"stride": True}, "stride must be an integer >= 1, got True"),
        ({"stride": 3, "update": "stride"}, "update must be chunk or sequence, got 'stride'"),
    ],
)
def test_bad_arguments_are_refused(cls: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        cls(**arguments)


def test_bad_arguments_of_one_estimator_are_refused() -> None:
    for cls in (RTRL, SnAp, EProp, RFLO):
        with pytest.raises(ValueError, match="max_entries must be an integer >= 1, got 0"):
            cls(3, max_entries=0)
    for drawing in (UORO, EProp, RFLO):
        with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
            drawing(3, seed=-1)
    word: Any = "transposed"
    with pytest.raises(ValueError, match="feedback must be readout or random, got 'transposed'"):
        EProp(3, feedback=word)
