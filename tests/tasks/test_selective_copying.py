"""Tokens to be found among noise, held to their description."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.tasks.selective_copying import SelectiveCopying


def make(length: int = 20, batch_size: int = 3, **options: Any) -> SelectiveCopying:
    settings = {"num_tokens": 4, "seed": 1, "train_batches": 2, "validation_batches": 1, "test_batches": 1, **options}
    return SelectiveCopying(length=length, batch_size=batch_size, **settings)


@given(num_tokens=st.integers(1, 5), noise=st.integers(0, 9), num_symbols=st.integers(2, 6))
def test_layout_of_a_sequence(num_tokens: int, noise: int, num_symbols: int) -> None:
    length = 2 * num_tokens + noise
    task = make(length, num_tokens=num_tokens, num_symbols=num_symbols)
    batch = task.batch("train", 0)
    assert (task.input_size, task.output_size) == (num_symbols + 2, num_symbols)
    assert batch.weights() == [0] * (length - num_tokens) + [3] * num_tokens
    for sequence in range(3):
        inputs, targets = batch.inputs[:, sequence].tolist(), batch.targets[:, sequence].tolist()
        assert [each for each in inputs[:-num_tokens] if each < num_symbols] == targets[-num_tokens:]
        assert inputs[:-num_tokens].count(num_symbols) == noise
        assert inputs[-num_tokens:] == [num_symbols + 1] * num_tokens


def test_tokens_are_equally_frequent_at_every_timestep() -> None:
    """4 tokens of 16 timesteps, each of 14 symbols: counts within five standard errors."""
    inputs = make(batch_size=4000).batch("train", 0).inputs[:-4]
    rate = 4 / 16
    places = (inputs < 14).sum(1)
    assert int((places - 4000 * rate).abs().max()) < 5 * math.sqrt(4000 * rate * (1 - rate))
    counts = torch.stack([(inputs == symbol).sum() for symbol in range(14)])
    assert int((counts - 16000 / 14).abs().max()) < 5 * math.sqrt(16000 / 14)


def test_loss_without_memory_and_with() -> None:
    task = make()
    batch = task.batch("test", 0)
    assert float(task.loss(torch.zeros(20, 3, 14), batch)) == pytest.approx(task.baseline)
    assert task.baseline == pytest.approx(math.log(14))
    answers = 60 * torch.nn.functional.one_hot(batch.targets.long(), 14).float()
    assert float(task.loss(answers, batch)) < 1e-6
    metric = task.metrics()["accuracy"]
    answers[-1] = answers[-1].roll(1, -1)  # the last of four wrong
    metric.update(batch.inside(answers), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(0.75)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^length must be >= 2 \* num_tokens = 8, got 7$"):
        make(7)
    with pytest.raises(ValueError, match=r"^num_symbols must be an integer >= 2, got 1$"):
        make(num_symbols=1)
