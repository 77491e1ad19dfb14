"""The language aⁿbⁿ, read back from its batches."""

import math
import re

import pytest
import torch
from torch import Tensor

from bptt.tasks import SPLITS
from bptt.tasks.anbn import AnBn
from bptt.tasks.base import Split


def make(length: int = 100, batch_size: int = 2, max_count: int = 32) -> AnBn:
    counts = {"train_batches": 3, "validation_batches": 2, "test_batches": 2}
    return AnBn(length=length, batch_size=batch_size, max_count=max_count, seed=1, **counts)


def text(task: AnBn, split: Split, num_batches: int, stream: int = 0) -> str:
    """Text that a stream reads in some batches; checks the targets, too."""
    batches = [task.batch(split, index) for index in range(num_batches)]
    inputs = torch.cat([batch.inputs[:, stream] for batch in batches]).tolist()
    targets = torch.cat([batch.targets[:, stream] for batch in batches]).tolist()
    assert inputs[1:] == targets[:-1], "each target is the next input, across batch borders too"
    return "".join("ab\n"[symbol] for symbol in [*inputs, targets[-1]])


def counts(characters: str) -> list[int]:
    """n of each whole string; there is nothing but strings."""
    strings = re.findall(r"a+\nb+\n", characters)
    assert characters.startswith("".join(strings))
    rest = characters[sum(map(len, strings)) :]
    assert re.fullmatch(r"a*|a+\nb*", rest)
    found = [len(string) // 2 - 1 for string in strings]
    assert strings == ["a" * number + "\n" + "b" * number + "\n" for number in found]
    return found


@pytest.mark.parametrize(("length", "num_batches"), [(1, 300), (100, 300), (30_000, 2)])
def test_streams_are_strings_without_end(length: int, num_batches: int) -> None:
    """Over many epochs and over the blocks in which strings are drawn, of about 9000 characters."""
    task = make(length)
    first, second = (counts(text(task, "train", num_batches, stream)) for stream in range(2))
    assert len(first) > length * num_batches / 35 * 0.6
    assert first != second


def test_every_number_is_as_frequent() -> None:
    """Within five standard errors."""
    found = counts(text(make(20_000, batch_size=1), "train", 6))
    assert set(found) == set(range(1, 33))
    for number in range(1, 33):
        assert abs(found.count(number) - len(found) / 32) < 5 * math.sqrt(len(found) * 31 / 32**2)


def test_splits_differ() -> None:
    assert len({text(make(), split, 2) for split in SPLITS}) == 3


def test_any_batch_can_be_drawn_first() -> None:
    """Later ones and then earlier ones; by a task that has seen none before or all."""
    used, fresh = make(1000), make(1000)
    expected = [used.batch("train", index).inputs for index in range(60)]
    for index in (59, 3, 27, 0, 58):
        assert torch.equal(fresh.batch("train", index).inputs, expected[index])


def test_state_is_initial_only_at_the_very_beginning() -> None:
    for index in range(7):
        reset = make().batch("train", index).reset
        assert reset is not None
        assert reset.tolist() == [index == 0] * 2


def best(characters: str, max_count: int) -> Tensor:
    """Log-probabilities of the next character (N, 3), by one who counts: after k a, n is uniform over k … max_count."""
    rows, a, b, line = [], 0, 0, 0
    for character in characters:
        if character == "\n" and line:
            a = b = line = 0
        elif character == "\n":
            line = 1
        elif character == "a":
            a += 1
        else:
            b += 1
        if line:
            rows.append([0.0, float(b < a), float(b == a)])
        else:
            end = 1 / (max_count - a + 1) if a else 0.0
            rows.append([1 - end, 0.0, end])
    return torch.tensor(rows).log().clamp(min=-1e4)


@pytest.mark.parametrize("max_count", [2, 32])
def test_who_counts_reaches_the_floor(max_count: int) -> None:
    """Each string costs him log₂ max_count bits exactly, so that only the mean length of a string is left to chance."""
    task = make(10_000, batch_size=1, max_count=max_count)
    batch = task.batch("train", 0)
    characters = text(task, "train", 1)
    whole = "".join(re.findall(r"a+\nb+\n", characters))
    predictions = best(characters[:-1], max_count)
    metric = task.metrics()["bits_per_character"]
    metric.update(predictions[: len(whole) - 1], batch.targets[: len(whole) - 1, 0])
    strings = len(counts(whole))
    exact = strings * math.log2(max_count) / (len(whole) - 1)  # the first character is given
    assert float(metric.compute()) == pytest.approx(exact, rel=1e-4)
    assert exact == pytest.approx(task.floor, rel=0.1)
    assert float(task.loss(predictions.unsqueeze(1), batch)) / math.log(2) == pytest.approx(exact, rel=0.02)


def test_the_published_floor() -> None:
    assert make().floor == pytest.approx(5 / 35)


def test_numbers_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"^max_count must be an integer >= 1, got 0$"):
        make(max_count=0)
