"""The copied binary pattern, held to its description."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.tasks.copy_bits import CopyBits


def make(pattern_length: int = 4, delay: int = 3, num_channels: int = 7, batch_size: int = 3) -> CopyBits:
    counts = {"seed": 1, "train_batches": 2, "validation_batches": 1, "test_batches": 1}
    return CopyBits(
        pattern_length=pattern_length, delay=delay, num_channels=num_channels, batch_size=batch_size, **counts
    )


@given(pattern_length=st.integers(1, 6), delay=st.integers(0, 6), num_channels=st.integers(1, 5))
def test_layout_of_a_sequence(pattern_length: int, delay: int, num_channels: int) -> None:
    """Zucchet et al. (2023), authors' code: the pattern, a pause, a sign on the last channel, the pattern as target."""
    task = make(pattern_length, delay, num_channels)
    batch = task.batch("train", 0)
    assert task.length == batch.num_timesteps == 2 * pattern_length + delay + 1
    assert batch.weights() == [0] * (pattern_length + delay + 1) + [3] * pattern_length
    bits, sign = batch.inputs[..., :-1], batch.inputs[..., -1]
    assert sign.sum(1).tolist() == [0] * (pattern_length + delay) + [3] + [0] * pattern_length
    assert torch.equal(bits[:pattern_length], batch.targets[-pattern_length:].float())
    assert float(bits[pattern_length:].abs().sum()) == 0
    assert set(bits.flatten().tolist()) <= {0.0, 1.0}


def test_bits_are_fair() -> None:
    bits = make(20, batch_size=500).batch("train", 0).targets[-20:].double()
    assert float(bits.mean()) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(bits.numel()))


def test_loss_without_memory_and_with() -> None:
    task = make()
    batch = task.batch("test", 0)
    assert float(task.loss(torch.zeros(12, 3, 7), batch)) == pytest.approx(task.baseline)
    assert task.baseline == pytest.approx(7 * math.log(2))
    odds = 100.0 * batch.targets - 50
    assert float(task.loss(odds, batch)) < 1e-6
    metric = task.metrics()["accuracy"]
    odds[..., 0] *= -1  # one of seven channels wrong
    metric.update(batch.inside(odds), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(6 / 7)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^pattern_length must be an integer >= 1, got 0$"):
        make(0)
    with pytest.raises(ValueError, match=r"^delay must be an integer >= 0, got -1$"):
        make(delay=-1)
