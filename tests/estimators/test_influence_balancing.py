"""Influence balancing: the table of truncated sums, and who gets the sign right."""

from collections.abc import Callable

import pytest
import torch
from support.gradients import gradient_at

from bptt.estimators import Chunked, Estimator, Full, Randomized, Sliding
from bptt.layers import Influence
from bptt.model import SequenceModel
from bptt.tasks.influence_balancing import InfluenceBalancing

pytestmark = pytest.mark.usefixtures("float64")


def _model() -> SequenceModel:
    return SequenceModel(Influence, input_size=1, output_size=23, hidden_size=23, readout="identity")


def _settled() -> tuple[SequenceModel, tuple[torch.Tensor, ...]]:
    """A network whose state has come to rest, at s_1 = −6 θ."""
    model = _model()
    state = model.advance(torch.zeros(1000, 1, 1), model.initial_state(1))
    return model, tuple(part.detach() for part in state)


@pytest.mark.parametrize(
    ("reach", "influence"),
    [(1, 1), (10, 10), (16, 15.37), (30, 9.87), (40, 0.566), (50, -4.75), (100, -6.00)],
)
def test_truncated_sums(reach: int, influence: float) -> None:
    """dL/dθ through the last K timesteps is (s_1 − 1) · G(K)."""
    model, state = _settled()
    task = InfluenceBalancing(length=reach, batch_size=1, train_batches=1)
    batch = task.batch("train", 1)
    model.zero_grad()
    predictions, _, _ = model(batch.inputs, state)
    task.loss(predictions[-1:], batch.between(reach - 1, reach)).backward()
    (theta,) = model.parameters()
    first_unit = float(state[0][0, 0])
    assert first_unit == pytest.approx(-3)
    assert float(gradient_at(theta)) / (first_unit - 1) == pytest.approx(influence, rel=5e-3)


def _sign(estimator: Estimator, length: int) -> float:
    """The sign of the gradient of the last update of a long batch, from the state at rest."""
    model, state = _settled()
    task = InfluenceBalancing(length=length, batch_size=1, train_batches=1)
    model.zero_grad()
    (theta,) = model.parameters()
    for _ in estimator.updates(model, task.loss, task.batch("train", 1), state):
        gradient = float(gradient_at(theta))
        model.zero_grad()
    return gradient


@pytest.mark.parametrize(
    ("estimator", "length", "right"),
    [
        (Sliding(1, 40), 60, False),
        (Sliding(1, 41), 60, True),
        (Chunked(109), 218, False),
        (Chunked(110), 220, True),
        (Full(), 400, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Estimator) else str(value),
)
def test_signs(estimator: Estimator, length: int, right: bool) -> None:
    """θ must grow less, from 1/2 towards −1/6: the right gradient is above 0."""
    assert (_sign(estimator, length) > 0) == right


def _train(estimator: Callable[[], Estimator], *, length: int, batches: int, rate: float) -> float:
    """θ after plain gradient descent."""
    model = _model()
    task = InfluenceBalancing(length=length, batch_size=1, train_batches=batches)
    state = model.initial_state(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    instance = estimator()
    for index in range(batches):
        for update in instance.updates(model, task.loss, task.batch("train", index), state):
            optimizer.step()
            optimizer.zero_grad()
            carried = update.state
        state = carried
    (theta,) = model.parameters()
    return float(theta.detach())


def test_who_converges() -> None:
    """Short chunks run away from θ* = −1/6, randomized truncation of the same mean length reaches it, as does full."""
    assert _train(lambda: Chunked(16), length=160, batches=20, rate=1e-4) > 0.6
    assert _train(lambda: Randomized(16), length=400, batches=40, rate=1e-3) == pytest.approx(-1 / 6, abs=0.02)
    assert _train(Full, length=200, batches=30, rate=1e-2) == pytest.approx(-1 / 6, abs=0.02)
