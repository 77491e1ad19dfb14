"""The temporal order problem, held to its description."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.tasks.temporal_order import TemporalOrder


def make(length: int, batch_size: int = 6, num_symbols: Any = 2) -> TemporalOrder:
    counts = {"train_batches": 9, "validation_batches": 1, "test_batches": 1}
    return TemporalOrder(length=length, batch_size=batch_size, num_symbols=num_symbols, seed=1, **counts)


@given(length=st.integers(10, 64), num_symbols=st.sampled_from([2, 3]), index=st.integers(0, 8))
def test_the_class_names_the_order_of_the_symbols(length: int, num_symbols: int, index: int) -> None:
    """Read off sequence by sequence: AA, AB, BA, BB or AAA, AAB … BBB, in the order of the alphabet."""
    task = make(length, num_symbols=num_symbols)
    words = [""]
    for _ in range(num_symbols):
        words = [word + letter for word in words for letter in "AB"]
    assert task.output_size == len(words)
    batch = task.batch("train", index)
    for sequence in range(6):
        found = [(place, "AB"[symbol]) for place, symbol in enumerate(batch.inputs[:, sequence].tolist()) if symbol < 2]
        assert int(batch.targets[-1, sequence]) == words.index("".join(letter for _, letter in found))
        assert len(found) == num_symbols
        for (place, _), tenth in zip(found, (1, 5, 8)):
            assert tenth * length <= 10 * place < (tenth + 1) * length
    assert batch.weights() == [0] * (length - 1) + [6]


def test_all_is_uniform() -> None:
    """Symbols, their positions, distractors and classes, each within five standard errors."""

    def is_uniform(values: torch.Tensor, choices: list[int]) -> None:
        counts = [int((values == choice).sum()) for choice in choices]
        share = 1 / len(choices)
        assert sum(counts) == values.numel(), "nothing else occurs"
        allowed = 5 * math.sqrt(values.numel() * share * (1 - share))
        assert max(abs(count - values.numel() * share) for count in counts) < allowed

    batch = make(50, batch_size=4000, num_symbols=3).batch("train", 0)
    symbol = batch.inputs < 2
    is_uniform(batch.targets[-1], list(range(8)))
    is_uniform(batch.inputs[~symbol], [2, 3, 4, 5])
    for first in (5, 25, 40):
        is_uniform(symbol[first : first + 5].int().argmax(0), list(range(5)))


@pytest.mark.parametrize("num_symbols", [2, 3])
def test_a_guess_costs_one_bit_a_symbol(num_symbols: int) -> None:
    task = make(20, num_symbols=num_symbols)
    guess = torch.zeros(20, 6, task.output_size)
    assert float(task.loss(guess, task.batch("test", 0))) == pytest.approx(num_symbols * math.log(2))


def test_accuracy_counts_the_answers_at_the_end() -> None:
    task = make(20)
    batch = task.batch("validation", 0)
    answers = torch.nn.functional.one_hot(batch.targets.long(), 4).float()
    answers[:-1] = 0
    answers[-1, :2] *= -1
    metric = task.metrics()["accuracy"]
    metric.update(batch.inside(answers), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(4 / 6)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^length must be an integer >= 10, got 9; each symbol falls in a tenth"):
        make(9)
    with pytest.raises(ValueError, match=r"^num_symbols must be 2 or 3, got 4$"):
        make(10, num_symbols=4)
