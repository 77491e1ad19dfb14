"""Delayed exclusive or and running parity, bit by bit."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.tasks.delayed_xor import DelayedXor


def make(length: int, batch_size: int = 4, **options: Any) -> DelayedXor:
    counts = {"train_batches": 9, "validation_batches": 1, "test_batches": 1}
    return DelayedXor(length=length, batch_size=batch_size, seed=1, **options, **counts)


@given(
    delay=st.integers(0, 12),
    num_bits=st.one_of(st.none(), st.integers(1, 5)),
    spacing=st.integers(1, 7),
    extra=st.integers(1, 20),
    index=st.integers(0, 8),
)
def test_targets_are_the_exclusive_or_of_earlier_bits(
    delay: int, num_bits: int | None, spacing: int, extra: int, index: int
) -> None:
    first = delay + ((num_bits or 1) - 1) * spacing
    batch = make(first + extra, delay=delay, num_bits=num_bits, spacing=spacing).batch("train", index)
    assert batch.weights() == [0] * first + [4] * extra
    for sequence in range(4):
        bits = [int(bit) for bit in batch.inputs[:, sequence, 0]]
        for t in range(first, first + extra):
            stop = t + 1 if num_bits is None else delay + num_bits * spacing
            lags = range(delay, stop, spacing)
            answer = 0
            for lag in lags:
                answer ^= bits[t - lag]
            assert int(batch.targets[t, sequence, 0]) == answer


def test_running_parity_turns_at_every_one() -> None:
    batch = make(300, num_bits=None).batch("test", 0)
    parity = 0
    for bit, target in zip(batch.inputs[:, 0, 0].tolist(), batch.targets[:, 0, 0].tolist()):
        parity = 1 - parity if bit else parity
        assert target == parity


def test_one_of_the_bits_tells_nothing() -> None:
    """The target agrees with either bit in half of all cases, within five standard errors."""
    batch = make(400, batch_size=50, delay=2).batch("train", 0)
    target = batch.targets[3:].float()
    for lag in (2, 3):
        agree = (target == batch.inputs[3 - lag : 400 - lag]).double().mean()
        assert float(agree) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(target.numel()))


def test_loss_and_accuracy() -> None:
    task = make(30, delay=4)
    batch = task.batch("validation", 0)
    assert float(task.loss(torch.zeros(30, 4, 1), batch)) == pytest.approx(task.baseline) == pytest.approx(math.log(2))
    odds = 0.2 * (2 * batch.targets.float() - 1)
    odds[:, 0] *= -1  # one sequence of four wrong
    metric = task.metrics()["accuracy"]
    metric.update(batch.inside(odds), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(0.75)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^length must be > 11, got 11; the first answer is due after 12 timesteps$"):
        make(11, delay=10)
    with pytest.raises(ValueError, match=r"^num_bits must be an integer >= 1, got 0$"):
        make(11, num_bits=0)
    with pytest.raises(ValueError, match=r"^delay must be an integer >= 0, got -1$"):
        make(11, delay=-1)
