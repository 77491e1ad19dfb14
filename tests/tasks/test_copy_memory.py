"""The copying memory problem, held to its description."""

import math

import pytest
import torch
from torch import Tensor

from bptt.tasks import Batch
from bptt.tasks.copy_memory import CopyMemory

BLANK, GO = 8, 9


def make(delay: int, batch_size: int = 3) -> CopyMemory:
    return CopyMemory(delay=delay, batch_size=batch_size, seed=1, train_batches=2, validation_batches=1, test_batches=1)


def certain(classes: Tensor, logit: float = 60.0) -> Tensor:
    """Predictions (T, B, 9) that put all probability on the given classes."""
    return logit * torch.nn.functional.one_hot(classes.long(), 9).double()


@pytest.mark.parametrize("delay", [1, 2, 7, 100])
def test_layout_of_a_sequence(delay: int) -> None:
    """Arjovsky, Shah & Bengio (2016): 10 symbols, T − 1 blanks, a go sign, 10 blanks; T + 20 timesteps in all."""
    task = make(delay)
    batch = task.batch("train", 0)
    assert task.length == batch.num_timesteps == delay + 20
    for sequence in range(3):
        inputs, targets = batch.inputs[:, sequence].tolist(), batch.targets[:, sequence].tolist()
        word = inputs[:10]
        assert all(0 <= symbol < 8 for symbol in word)
        assert inputs[10:] == [BLANK] * (delay - 1) + [GO] + [BLANK] * 10
        assert targets == [BLANK] * (delay + 10) + word


@pytest.mark.parametrize("num_symbols", [1, 2, 25])
def test_layout_with_another_number_of_symbols(num_symbols: int) -> None:
    counts = {"seed": 1, "train_batches": 1, "validation_batches": 1, "test_batches": 1}
    task = CopyMemory(delay=4, num_symbols=num_symbols, batch_size=1, **counts)
    inputs, targets = (
        values[:, 0].tolist() for values in (task.batch("test", 0).inputs, task.batch("test", 0).targets)
    )
    word = inputs[:num_symbols]
    assert inputs[num_symbols:] == [BLANK] * 3 + [GO] + [BLANK] * num_symbols
    assert targets == [BLANK] * (num_symbols + 4) + word
    assert task.baseline == pytest.approx(num_symbols * math.log(8) / (4 + 2 * num_symbols), rel=1e-12)


def test_every_symbol_occurs_at_every_place() -> None:
    words = make(1, batch_size=2000).batch("train", 0).inputs[:10]
    counts = torch.stack([(words == symbol).sum(1) for symbol in range(8)])
    assert int(counts.sum()) == 10 * 2000
    assert int((counts - 250).abs().max()) < 5 * math.sqrt(2000 * 1 / 8 * 7 / 8)


@pytest.mark.parametrize("delay", [1, 30])
def test_baseline_is_the_loss_without_memory(delay: int) -> None:
    """Blanks where blanks are due, then each of the 8 symbols with probability 1/8: 10 ln 8 / (T + 20)."""
    task = make(delay)
    batch = task.batch("test", 0)
    predictions = certain(torch.full_like(batch.targets, BLANK))
    predictions[-10:] = torch.tensor([0.0] * 8 + [-60.0], dtype=torch.double)
    assert float(task.loss(predictions, batch)) == pytest.approx(10 * math.log(8) / (delay + 20), rel=1e-9)
    assert task.baseline == pytest.approx(10 * math.log(8) / (delay + 20), rel=1e-12)


def test_all_timesteps_have_a_loss() -> None:
    assert make(5).batch("train", 0).weights() == [3] * 25


def recall(batch: Batch, answers: Tensor) -> float:
    metric = make(5).metrics()["recall"]
    metric.update(batch.inside(certain(answers)), batch.inside(batch.targets))
    return float(metric.compute())


def test_recall_counts_only_symbols() -> None:
    batch = make(5).batch("validation", 0)
    assert recall(batch, batch.targets) == 1

    no_blank_right = torch.where(batch.targets == BLANK, 0, batch.targets)
    assert recall(batch, no_blank_right) == 1

    assert recall(batch, torch.full_like(batch.targets, BLANK)) == 0

    wrong_from_the_fifth_on = batch.targets.clone()
    wrong_from_the_fifth_on[-6:] = (batch.targets[-6:] + 1) % 8
    assert recall(batch, wrong_from_the_fifth_on) == pytest.approx(0.4)


def test_delay_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"^delay must be an integer >= 1, got 0$"):
        make(0)
