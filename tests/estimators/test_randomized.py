"""ARTBP: unbiased, and with the stated law of truncation lengths."""

import math
from typing import Any

import pytest
import torch
from support import oracles
from support.masked_batches import loss, make_model, masked_batch
from torch import Tensor

from bptt.estimators import Chunked, Estimator, Full, Randomized
from bptt.model import SequenceModel
from bptt.shapes import leaves
from bptt.tasks import Batch

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(("kind", "pattern", "block"), [("elman", "none", 1), ("lstm", "holes", 1), ("gru", "last", 3)])
def test_unbiased(kind: str, pattern: str, block: int) -> None:
    """Over 300 draws, the mean along each of a few directions lies within 4 standard errors of the full gradient's."""
    model, batch = make_model(kind), masked_batch(pattern, 9, 2, 3)
    exact = _flat(model, Full(), batch)
    estimates = torch.stack(
        [_flat(model, Randomized(4, block=block, update="sequence", seed=seed), batch) for seed in range(300)]
    )
    directions = torch.cat([exact.unsqueeze(1) / exact.norm(), torch.randn(len(exact), 5)], dim=1)
    along = (estimates - exact) @ directions
    error = along.std(0) / math.sqrt(len(along))
    assert bool((error > 0).all())
    assert bool((along.mean(0).abs() < 4 * error).all())
    chunked = _flat(model, Chunked(4, update="sequence"), batch)  # the test can tell: chunks of that length are outside
    assert bool((((chunked - exact) @ directions).abs() > 4 * error).any())


def test_updates_add_up() -> None:
    """The gradients of the updates by truncation are those of one update a batch, over another number of losses."""
    model, batch = make_model("gru", 2), masked_batch("random", 12, 2, 3)
    whole = _flat(model, Randomized(3, update="sequence", seed=5), batch)
    parts = torch.zeros_like(whole)
    stops: list[int] = []
    model.zero_grad()
    for update in Randomized(3, seed=5).updates(model, loss, batch, model.initial_state(2)):
        assert update.start == (stops[-1] if stops else 0)
        stops.append(update.stop)
        parts += _gradient(model) if update.weight else 0
        model.zero_grad()
    assert stops[-1] == 12
    assert len(stops) > 1
    torch.testing.assert_close(parts * 3 / 12, whole)


def test_plain_forward_states() -> None:
    model, batch = make_model("lstm", 2), masked_batch("none", 11, 2, 3)
    *_, last = Randomized(3).updates(model, loss, batch, model.initial_state(2))
    torch.testing.assert_close(leaves(last.state), leaves(model.advance(batch.inputs, model.initial_state(2))))


def test_truncation_lengths() -> None:
    """P(L = l) = c_l ∏_{s<l} (1 − c_s), by a chi-squared statistic over 20,000 draws; and the factor is 1 / (1 − c)."""
    estimator = Randomized(6, alpha=3.0, seed=1)
    lengths, distance = [], 0
    for _, stop, factor in estimator.truncations(120_000):
        distance += 1
        if factor:
            assert factor == pytest.approx(1 / (1 - 3 / (12 + distance)))
        elif stop < 120_000:
            lengths.append(distance)
            distance = 0
    counts = torch.bincount(torch.tensor(lengths))
    probability, survival, statistic = 0.0, 1.0, 0.0
    for length in range(1, 21):
        probability = survival * 3 / (12 + length)
        survival -= probability
        expected = probability * len(lengths)
        statistic += (int(counts[length]) - expected) ** 2 / expected
    assert statistic < 45  # 20 degrees of freedom: above 45 in one of a thousand
    assert sum(lengths) / len(lengths) == pytest.approx(6, rel=0.1)


def test_same_draws_from_the_same_seed() -> None:
    draws = [list(Randomized(5, seed=seed).truncations(50)) for seed in (3, 3, 4)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mean_length": 1},
            "mean_length must be an integer >= 2, got 1; blocks that are all cut are estimator=chunked",
        ),
        ({"mean_length": 4, "alpha": 1.0}, r"alpha must be a number in \(1, inf\), got 1.0"),
        ({"mean_length": 8, "block": 8}, "mean_length must be an integer >= 9, got 8; .*, or use a smaller block"),
        ({"mean_length": 4, "update": "chunk"}, "update must be truncation or sequence, got 'chunk'"),
    ],
)
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Randomized(**options)


def _flat(model: SequenceModel, estimator: Estimator, batch: Batch) -> Tensor:
    model.zero_grad()
    for _ in estimator.updates(model, loss, batch, model.initial_state(2)):
        pass
    return _gradient(model)


def _gradient(model: SequenceModel) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in oracles.grads(model).values()])


def test_draws_are_the_same_where_half_precision_is_the_default() -> None:
    """In bf16-true training, the default dtype is bfloat16, whose random numbers are multiples of 1/256."""
    plain = list(Randomized(50, seed=3).truncations(2000))
    torch.set_default_dtype(torch.bfloat16)
    try:
        half = list(Randomized(50, seed=3).truncations(2000))
    finally:
        torch.set_default_dtype(torch.float32)
    assert half == plain
