"""The sum that forgets, held to its equation."""

import math

import pytest
import torch

from bptt.tasks.leaky_sum import LeakySum

COUNTS = {"seed": 1, "train_batches": 2, "validation_batches": 1, "test_batches": 1}


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_targets_are_weighted_sums(rate: float) -> None:
    batch = LeakySum(rate=rate, length=30, batch_size=3, **COUNTS).batch("train", 1)
    lags = torch.arange(30)[:, None] - torch.arange(30)
    weights = torch.where(lags >= 0, rate ** lags.clamp(min=0).double(), 0.0) * math.sqrt(1 - rate**2)
    expected = torch.einsum("ts,sbi->tbi", weights, batch.inputs.double())
    torch.testing.assert_close(batch.targets.double(), expected, rtol=1e-5, atol=1e-5)
    assert batch.weights() == [3] * 30


@pytest.mark.parametrize("rate", [0.5, 0.95])
def test_baseline_is_the_loss_of_a_constant_answer(rate: float) -> None:
    task = LeakySum(rate=rate, length=25, batch_size=20000, **COUNTS)
    batch = task.batch("train", 0)
    loss = float(task.loss(torch.zeros_like(batch.targets), batch))
    assert loss == pytest.approx(task.baseline, rel=0.03)


@pytest.mark.parametrize("rate", [0, 1, -0.5, math.nan, "fast"])
def test_rates_that_do_not_decay(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate must be a number in \(0, 1\), got"):
        LeakySum(rate=rate, length=5, batch_size=1, **COUNTS)
