"""The adaptive chunk size recovers what is known of a process with geometric decay."""

import math
from typing import Any

import pytest
import torch
from support import oracles
from support.gradients import gradient_at
from support.masked_batches import loss, make_model, masked_batch
from torch import Tensor, nn

from bptt.estimators import Adaptive, Estimator, Sliding
from bptt.estimators.adaptive import gradients_by_lag, smallest_chunk_size
from bptt.layers import Layer
from bptt.model import SequenceModel
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("delta", [0.5, 0.1])
def test_geometric_decay(rate: float, delta: float) -> None:
    """φ_k = β^k, observed over 10 lags only: bias(K) = β^K / (1 − β) exactly, tail included."""
    phi, norms = rate ** torch.arange(10.0), torch.zeros(10)
    norms[9] = norm = 5 / (1 - rate)
    bias = rate**10 / (1 - rate)
    chosen = smallest_chunk_size(phi, norms, delta=delta)
    wanted = math.log(delta * (norm - bias) * (1 - rate)) / math.log(rate)
    expected = max(1, math.floor(wanted) + 1)
    assert chosen == (expected if expected <= 10 else None)


def test_gradient_that_does_not_decay() -> None:
    assert smallest_chunk_size(torch.ones(10), torch.full((10,), 3.0), delta=0.5) is None


class Leak(Layer):
    """h_t = w h_{t-1} + v x_t, unit by unit."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__(input_size, hidden_size)
        self.decay = nn.Parameter(torch.full((hidden_size,), 0.7))
        self.drive = nn.Linear(input_size, hidden_size, bias=False)

    def initial_state(self, batch_size: int) -> Tensor:
        return self.decay.new_zeros(batch_size, self.hidden_size)

    def step(self, input: Tensor, state: Tensor) -> Tensor:
        return self.decay * state + self.drive(input)


def test_measured_lags_of_a_known_process() -> None:
    """A leak of 0.7 passes 0.7^k of the gradient on over k timesteps."""
    model = SequenceModel(Leak, input_size=2, output_size=2, hidden_size=3)
    window = masked_batch("none", 12, 2, 3)
    with torch.no_grad():
        phi = gradients_by_lag(model, loss, window, model.initial_state(2)).norm(dim=2).mean(1)
    torch.testing.assert_close(phi / phi[0], 0.7 ** torch.arange(12.0))


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm", "lru", "mingru"])
def test_gradients_by_lag(kind: str) -> None:
    """Each sequence's own loss, at all states of two layers, against plain autograd."""
    model, window = make_model(kind, 2), masked_batch("none", 7, 2, 3)
    with torch.no_grad():
        found = gradients_by_lag(model, loss, window, model.initial_state(2))
    torch.testing.assert_close(found, by_autograd(kind, model, window))


def by_autograd(kind: str, model: SequenceModel, window: Batch) -> Tensor:
    whole = oracles.run_model(kind, model, window.inputs)
    (whole.predictions[-1] - window.targets[-1]).square().sum().backward()
    states = [
        torch.cat([gradient_at(part) for layer in whole.states for part in layer[t]], dim=1)
        for t in range(len(whole.states[0]))
    ]
    return torch.stack(states[::-1])


def test_units_make_no_difference() -> None:
    """The same process, with its inputs and the weights on them in other units."""
    sizes = set()
    for scale in (0.01, 1.0, 100.0):
        torch.manual_seed(4)
        model = SequenceModel(Leak, input_size=2, output_size=2, hidden_size=3)
        batch = masked_batch("none", 60, 2, 3)
        with torch.no_grad():
            model.get_parameter("layers.0.drive.weight").div_(scale)
        batch.inputs = batch.inputs * scale
        sizes.add(Adaptive(0.5, lags=20).choose(model, loss, batch, model.initial_state(2)))
    assert len(sizes) == 1
    assert 2 < sizes.pop() < 20


def test_squares_of_gradients_beyond_float32() -> None:
    """Loss scales of 1e±30, whose gradients are float32 numbers but not their squares."""
    sizes = set()
    for scale in (1e-30, 1.0, 1e30):
        torch.manual_seed(4)
        model, batch = SequenceModel(Leak, input_size=2, output_size=2, hidden_size=3), masked_batch("none", 60, 2, 3)
        model, batch.inputs, batch.targets = model.float(), batch.inputs.float(), batch.targets.float()
        estimator = Adaptive(0.5, lags=20)
        sizes.add(estimator.choose(model, lambda *given, by=scale: loss(*given) * by, batch, model.initial_state(2)))
    assert len(sizes) == 1
    assert 2 < sizes.pop() < 20


def test_layers_that_are_not_trained() -> None:
    model, batch = make_model("gru", 2), masked_batch("none", 20, 2, 3)
    free = Adaptive(0.1, lags=10).choose(model, loss, batch, model.initial_state(2))
    model.requires_grad_(False)
    assert Adaptive(0.1, lags=10).choose(model, loss, batch, model.initial_state(2)) == free


def test_trains_as_sliding_windows_of_its_choice() -> None:
    """The size is updated regularly, within its bounds, and this changes neither gradients nor random state."""
    model, batch = make_model("gru", dropout=0.0), masked_batch("none", 20, 2, 3)
    estimator = Adaptive(0.5, lags=10, num_samples=4, every_n_batches=2, min_chunk_size=3, max_chunk_size=8, seed=2)
    before = torch.get_rng_state()
    found = _gradients(estimator, model, batch)
    assert torch.equal(torch.get_rng_state(), before)
    size = estimator.chunk_size
    assert 3 <= size <= 8
    for gradient, expected in zip(found, _gradients(Sliding(size, 2 * size - 1), model, batch), strict=True):
        assert oracles.relative_error(gradient, expected) == 0
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    _gradients(estimator, model, batch)
    assert estimator.chunk_size == size  # the second batch keeps the choice
    _gradients(estimator, model, batch)
    assert estimator.chunk_size == 3  # the third one sees that nothing comes back through zero weights


def test_at_a_lag_those_samples_count_that_reach_so_far() -> None:
    """Samples closer to the batch's start than a lag do not count at that lag."""
    model, batch = make_model("gru"), masked_batch("none", 6, 2, 3)
    drawn = Adaptive(0.5, lags=6, num_samples=50, seed=3).draw(batch)
    assert sorted(set(drawn)) == list(range(6))
    seen: list[Tensor] = []

    def spied(phi: Tensor, norms: Tensor, *, delta: float) -> int:
        seen.extend((phi, norms))
        return 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bptt.estimators.adaptive.smallest_chunk_size", spied)
        Adaptive(0.5, lags=6, num_samples=50, seed=3).choose(model, loss, batch, model.initial_state(2))
    by_sample = [by_autograd("gru", model, batch.between(0, s + 1)) for s in drawn]
    phi, total = [], torch.zeros(4)
    norms = []
    for lag in range(6):
        reaching = torch.stack([each[lag] for each in by_sample if len(each) > lag])
        phi.append(reaching.norm(dim=2).mean())
        total = total + reaching.mean((0, 1))
        norms.append(total.norm())
    torch.testing.assert_close(seen, [torch.stack(phi), torch.stack(norms)])


def test_batch_without_loss() -> None:
    estimator = Adaptive(0.5)
    model = make_model("gru")
    batch = Batch(torch.randn(5, 2, 2), torch.zeros(5, 2, 2), mask=torch.zeros(5, 2, dtype=torch.bool))
    updates = list(estimator.updates(model, loss, batch, model.initial_state(2)))
    assert all(update.weight == 0 for update in updates)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0.0}, r"delta must be a number in \(0, inf\), got 0.0"),
        ({"delta": "a"}, "delta must be a number"),
        ({"delta": 0.1, "lags": 1}, "lags must be an integer >= 2, got 1"),
        ({"delta": 0.1, "min_chunk_size": 9, "max_chunk_size": 8}, "max_chunk_size must be an integer >= 9, got 8"),
    ],
)
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptive(**options)


def _gradients(estimator: Estimator, model: SequenceModel, batch: Batch) -> list[dict[str, Tensor]]:
    model.zero_grad()
    found = []
    for _ in estimator.updates(model, loss, batch, model.initial_state(2)):
        found.append(oracles.grads(model))
        model.zero_grad()
    return found


def test_sequences_without_a_loss_do_not_count_in_packed_batches() -> None:
    """Episodes of 5 timesteps, each with a loss at its end, begin at other timesteps in each sequence."""
    model = SequenceModel(Leak, input_size=2, output_size=2, hidden_size=3)
    time, offset = torch.arange(40).unsqueeze(1), torch.arange(4)
    resets = (time - offset) % 5 == 0
    mask = ((time - offset) % 5 == 4) & (time >= 10)
    batch = masked_batch("none", 40, 4, 5)
    batch = Batch(batch.inputs, batch.targets, mask, resets)
    seen: list[Tensor] = []

    def spied(phi: Tensor, norms: Tensor, *, delta: float) -> int:
        seen.append(phi)
        return 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bptt.estimators.adaptive.smallest_chunk_size", spied)
        Adaptive(0.5, lags=10, num_samples=20, seed=3).choose(model, loss, batch, model.initial_state(4))
    torch.testing.assert_close(seen[0] / seen[0][0], 0.7 ** torch.arange(5.0))


def test_draws_to_measure_noise_choose_anew() -> None:
    estimator = Adaptive(0.5, lags=4, num_samples=2, every_n_batches=10)
    model, batch = make_model("gru"), masked_batch("none", 6, 2, 3)
    anew, before = estimator.drawing_anew(), estimator.state_dict()
    for _ in range(3):
        random = estimator.generator.get_state()
        list(anew.updates(model, loss, batch, model.initial_state(2)))
        assert not torch.equal(estimator.generator.get_state(), random)
    estimator.load_state_dict(before)
    assert (estimator.batches, estimator.chunk_size) == (0, 100)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_gradients_that_overflow_are_not_cut_short(value: float) -> None:
    phi = 2.0 ** torch.arange(10.0)
    phi[9] = value
    assert smallest_chunk_size(phi, phi.cumsum(0), delta=0.1) is None
