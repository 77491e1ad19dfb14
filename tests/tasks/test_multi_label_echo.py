"""Channels that must be echoed, label by label."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.tasks.multi_label_echo import MultiLabelEcho


def make(length: int = 40, batch_size: int = 3, **options: Any) -> MultiLabelEcho:
    settings: dict[str, Any] = {"delay": 5, "train_batches": 2, "validation_batches": 1, "test_batches": 1, **options}
    return MultiLabelEcho(length=length, batch_size=batch_size, seed=1, **settings)


@given(delay=st.integers(0, 9), extra=st.integers(1, 9), num_channels=st.integers(1, 5))
def test_every_channel_comes_again_after_the_delay(delay: int, extra: int, num_channels: int) -> None:
    length = delay + extra
    task = make(length, delay=delay, num_channels=num_channels)
    batch = task.batch("train", 0)
    assert task.input_size == task.output_size == num_channels
    assert batch.targets.shape == (length, 3, num_channels)
    assert batch.weights() == [0] * delay + [3] * extra
    for t in range(delay, length):
        assert batch.targets[t].tolist() == batch.inputs[t - delay].tolist()


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_channels_are_independent_with_their_probability(probability: float) -> None:
    """Means and products of neighbours, within five standard errors."""
    inputs = make(200, batch_size=50, probability=probability, num_channels=4).batch("train", 0).inputs.double()
    assert set(inputs.flatten().tolist()) == {0.0, 1.0}
    variance = probability * (1 - probability)
    size = inputs.shape[0] * inputs.shape[1]
    assert inputs.mean((0, 1)).tolist() == pytest.approx([probability] * 4, abs=5 * math.sqrt(variance / size))
    centred = inputs - probability
    covariance = torch.einsum("tbv,tbw->vw", centred, centred) / size
    off = covariance - torch.diag(covariance.diagonal())
    assert float(off.abs().max()) < 5 * variance / math.sqrt(size)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_baseline_is_the_loss_without_memory(probability: float) -> None:
    """The log-odds of the probability at every label, summed over the channels."""
    task = make(400, batch_size=20, probability=probability)
    batch = task.batch("test", 0)
    odds = math.log(probability / (1 - probability))
    loss = float(task.loss(torch.full((400, 20, 8), odds), batch))
    noise = abs(odds) * math.sqrt(8 * probability * (1 - probability) / (395 * 20))
    assert loss == pytest.approx(task.baseline, abs=5 * noise + 1e-5)
    entropy = -probability * math.log(probability) - (1 - probability) * math.log(1 - probability)
    assert task.baseline == pytest.approx(8 * entropy)


def test_an_echo_costs_nothing() -> None:
    task = make()
    batch = task.batch("validation", 0)
    odds = torch.full((40, 3, 8), -50.0)
    odds[5:] += 100 * batch.inputs[:-5]
    assert float(task.loss(odds, batch)) < 1e-6
    metric = task.metrics()["accuracy"]
    odds[..., :2] *= -1  # two of eight channels wrong
    metric.update(batch.inside(odds), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(0.75)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^length must be > delay = 5, got 5$"):
        make(5)
    with pytest.raises(ValueError, match=r"^probability must be a number in \(0, 1\), got 1$"):
        make(probability=1)
    with pytest.raises(ValueError, match=r"^num_channels must be an integer >= 1, got 0$"):
        make(num_channels=0)
