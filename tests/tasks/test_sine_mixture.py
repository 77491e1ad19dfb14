"""Sums of sines, known by the linear recurrences they obey."""

import math
from typing import Any

import pytest
import torch

from bptt.tasks.sine_mixture import SineMixture


def make(length: int = 200, batch_size: int = 8, **options: Any) -> SineMixture:
    counts = {"train_batches": 2, "validation_batches": 1, "test_batches": 1}
    return SineMixture(length=length, batch_size=batch_size, seed=1, **options, **counts)


def test_targets_are_the_next_inputs() -> None:
    batch = make().batch("train", 0)
    assert torch.equal(batch.targets[:-1], batch.inputs[1:])


@pytest.mark.parametrize("num_sines", [1, 2, 3])
def test_number_of_sines(num_sines: int) -> None:
    """A Hankel matrix of a sum of K sines has rank 2K."""
    inputs = make(120, num_sines=num_sines, min_frequency=0.02, max_frequency=0.3).batch("train", 0).inputs.double()
    for sequence in range(8):
        hankel = inputs[:, sequence, 0].unfold(0, 60, 1)
        values = torch.linalg.svdvals(hankel)
        assert values[2 * num_sines] < 1e-5 * values[0], "no more"
    ranks = [int((torch.linalg.svdvals(inputs[:, sequence, 0].unfold(0, 60, 1)) > 1e-4).sum()) for sequence in range(8)]
    assert max(ranks) == 2 * num_sines, "no fewer, but where two frequencies meet"


def test_frequencies_fill_their_band() -> None:
    """One sine obeys x_{t+1} + x_{t−1} = 2 cos(2πf) x_t, which gives f."""
    inputs = make(100, batch_size=400, num_sines=1, min_frequency=0.05, max_frequency=0.2).batch("train", 0).inputs
    x = inputs[..., 0].double()
    cosine = ((x[2:] + x[:-2]) * x[1:-1]).sum(0) / (2 * x[1:-1].square().sum(0))
    frequency = cosine.arccos() / (2 * math.pi)
    assert 0.05 <= float(frequency.min()) < 0.055
    assert 0.195 < float(frequency.max()) <= 0.2
    assert float(frequency.mean()) == pytest.approx(0.125, abs=5 * 0.15 / math.sqrt(12 * 400))


@pytest.mark.parametrize("num_sines", [1, 3])
def test_always_answering_zero_costs_one(num_sines: int) -> None:
    """Over random phases, within five standard errors of 4000 sequences."""
    task = make(20, batch_size=4000, num_sines=num_sines)
    batch = task.batch("test", 0)
    zero = torch.zeros_like(batch.targets)
    each = task.errors(zero, batch.targets).mean(0)
    assert task.baseline == 1
    assert float(task.loss(zero, batch)) == pytest.approx(1, abs=5 * float(each.std()) / math.sqrt(4000))
    metric = task.metrics()["mse"]
    metric.update(batch.inside(zero), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(float(task.loss(zero, batch)), rel=1e-5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^max_frequency must be a number in \(0, 0.5\], got 0.6$"):
        make(max_frequency=0.6)
    with pytest.raises(ValueError, match=r"^min_frequency must be a number in \(0, 0.1\), got 0.1$"):
        make(min_frequency=0.1)
    with pytest.raises(ValueError, match=r"^num_sines must be an integer >= 1, got 0$"):
        make(num_sines=0)
