"""The copy streams of Aicher, Foti & Fox (2019), read by a machine that keeps the symbols in a list."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from bptt.tasks import SPLITS
from bptt.tasks.aicher_copy import AicherCopy
from bptt.tasks.base import Split

BLANK, HASH = 0, 1
VARIABLE = {"min_memory": 5, "max_memory": 10}


def make(length: int = 70, batch_size: int = 5, **options: Any) -> AicherCopy:
    return AicherCopy(length=length, batch_size=batch_size, **{"seed": 1, **options})


def stream(task: AicherCopy, split: Split) -> tuple[Tensor, Tensor]:
    """All inputs and targets of a split, (steps, B)."""
    batches = [task.batch(split, index) for index in range(task.num_batches(split))]
    return torch.cat([batch.inputs for batch in batches]), torch.cat([batch.targets for batch in batches])


def copies(inputs: list[int]) -> tuple[list[int], list[int], int]:
    """Correct copies from the first '#' on, the number of symbols of each, and the position of that '#'."""
    first = inputs.index(HASH)
    answers: list[int] = []
    kept: list[int] = []
    sizes = []
    for symbol in inputs[first:]:
        if symbol == HASH:
            assert not kept, "all symbols are asked before new ones come"
            sizes.append(0)
        if symbol == BLANK:
            answers.append(kept.pop(0))
        else:
            kept.append(symbol)
            sizes[-1] += 1
            answers.append(BLANK)
    return answers, sizes, first


@pytest.mark.parametrize("options", [{}, VARIABLE], ids=["fixed", "variable"])
@pytest.mark.parametrize("split", SPLITS)
def test_targets_are_what_a_copyist_writes(split: Split, options: dict[str, int]) -> None:
    """Over the borders of batches: 70 divides neither the streams nor the repetitions."""
    task = make(**options)
    inputs, targets = stream(task, split)
    assert inputs.shape == ({"train": 4000, "validation": 1000, "test": 1000}[split], 5)
    for number in range(5):
        answers, sizes, first = copies(inputs[:, number].tolist())
        assert targets[first:, number].tolist() == answers
        assert set(sizes[:-1]) == (set(range(5, 11)) if options else {10})
        assert 0 <= first < 20


def test_symbols_and_sizes_are_uniform() -> None:
    """Within five standard errors."""
    inputs, _ = stream(make(batch_size=20, **VARIABLE), "train")
    sizes = Counter(size for number in range(20) for size in copies(inputs[:, number].tolist())[1][:-1])
    total = sum(sizes.values())
    assert total > 3000
    for size in range(5, 11):
        assert abs(sizes[size] - total / 6) < 5 * math.sqrt(total * 5 / 36)
    symbols = inputs[inputs >= 2]
    assert int(symbols.max()) == 5
    for symbol in range(2, 6):
        assert abs(int((symbols == symbol).sum()) - len(symbols) / 4) < 5 * math.sqrt(len(symbols) * 3 / 16)


def test_streams_are_shifted_at_random() -> None:
    inputs, _ = stream(make(batch_size=400, train_steps=40), "train")
    shifts = Counter(column.index(HASH) for column in inputs.T.tolist())
    assert sorted(shifts) == list(range(20))
    assert max(shifts.values()) < 20 + 5 * math.sqrt(20)


@pytest.mark.parametrize("options", [{}, VARIABLE], ids=["fixed", "variable"])
def test_torn_ends_are_moved_up_by_the_shifts_of_later_streams(options: dict[str, int]) -> None:
    whole, torn = make(**options), make(torn_ends=True, **options)
    for one, other in zip(stream(whole, "test"), stream(torn, "test")):
        assert torch.equal(one[:, -1], other[:, -1])
        assert not torch.equal(one, other)
    inputs = stream(make(), "test")[0]  # of fixed sizes, so that the first '#' shows the shift
    shifts = [-inputs[:, number].tolist().index(HASH) % 20 for number in range(5)]
    if not options:
        for number in range(5):
            later = sum(shifts[number + 1 :])
            for one, other in zip(stream(whole, "test"), stream(torn, "test")):
                assert torch.equal(one[later:, number], other[: len(other) - later, number])


def test_torn_ends_leave_as_few_symbols_as_the_published_streams() -> None:
    """Fractions of the targets counted in the data in the authors' repository: .4288, .3770 and .3771."""
    task = make(batch_size=64, torn_ends=True)
    for split, share in zip(SPLITS, (0.4288, 0.377, 0.3771)):
        targets = stream(task, split)[1]
        assert float((targets >= 2).float().mean()) == pytest.approx(share, abs=0.012)


def test_gaps_leave_out_the_end_of_every_500_timesteps_of_training() -> None:
    whole, torn = make(train_steps=1270), make(train_steps=1270, gap=9)
    for one, other in zip(stream(whole, "train"), stream(torn, "train")):
        assert torch.equal(torch.cat([one[:491], one[500:991], one[1000:]]), other)
    for one, other in zip(stream(whole, "test"), stream(torn, "test")):
        assert torch.equal(one, other)
    assert len(stream(make(train_steps=1000, gap=9), "train")[0]) == 2 * 491


def test_training_repeats_its_stream_with_fresh_states() -> None:
    task = make()
    epoch = task.num_batches("train")
    assert epoch == math.ceil(4000 / 70)
    for index in range(2 * epoch):
        batch = task.batch("train", index)
        assert torch.equal(batch.inputs, task.batch("train", index % epoch).inputs)
        assert batch.reset is not None
        assert batch.reset.tolist() == [index % epoch == 0] * 5
    assert not torch.equal(task.batch("train", 0).inputs, task.batch("test", 0).inputs)


def test_streams_follow_from_the_seed() -> None:
    first, again, other = (make(seed=seed).batch("train", 0).inputs for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("certainty", [1 / 6, 0.5, 1.0])
def test_perplexity(certainty: float) -> None:
    """The inverse of the probability that the right symbols got; 6 for a uniform guess."""
    task = make()
    batch = task.batch("test", 0)
    right = torch.nn.functional.one_hot(batch.targets.long(), 6).bool()
    predictions = torch.where(right, certainty, (1 - certainty) / 5).double().log().clamp(min=-100)
    metric = task.metrics()["perplexity"]
    metric.update(batch.inside(predictions), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(1 / certainty)
    assert float(task.loss(predictions, batch)) == pytest.approx(-math.log(certainty), abs=1e-6)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^max_memory must be >= min_memory = 10, got 9$"):
        make(max_memory=9)
    with pytest.raises(ValueError, match=r"^min_memory must be an integer >= 1, got 0$"):
        make(min_memory=0)
    with pytest.raises(ValueError, match=r"^gap must be < 500, got 500$"):
        make(gap=500)
    with pytest.raises(ValueError, match=r"^gap must be an integer >= 0, got -1$"):
        make(gap=-1)
    with pytest.raises(ValueError, match=r"^test_steps must be an integer >= 1, got 0$"):
        make(test_steps=0)
