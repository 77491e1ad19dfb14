"""The adding problem, held to its description."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bptt.tasks.adding import Adding


def make(length: int, batch_size: int = 5) -> Adding:
    return Adding(length=length, batch_size=batch_size, seed=1, train_batches=9, validation_batches=1, test_batches=1)


@given(length=st.integers(2, 31), index=st.integers(0, 8))
def test_targets_are_the_sum_of_the_two_marked_values(length: int, index: int) -> None:
    batch = make(length).batch("train", index)
    values, marks = batch.inputs.unbind(-1)
    assert ((values >= 0) & (values < 1)).all()
    assert ((marks == 0) | (marks == 1)).all()
    assert (marks[: length // 2].sum(0) == 1).all(), "one mark in the first half"
    assert (marks[length // 2 :].sum(0) == 1).all(), "one mark in the second half"
    torch.testing.assert_close(batch.targets[-1, :, 0], (values * marks).sum(0))


@given(length=st.integers(2, 31))
def test_only_the_last_timestep_has_a_loss(length: int) -> None:
    assert make(length).batch("test", 0).weights() == [0] * (length - 1) + [5]


def test_marks_fall_everywhere() -> None:
    marks = make(7, batch_size=3000).batch("train", 0).inputs[..., 1].mean(1)
    torch.testing.assert_close(marks, torch.tensor([1 / 3] * 3 + [1 / 4] * 4), atol=0.04, rtol=0)


def test_answering_one_costs_a_sixth() -> None:
    """The variance of the sum of two uniform values, within five standard errors: Var (S − 1)² = 1/15 − 1/36."""
    task = make(2, batch_size=50_000)
    batch = task.batch("validation", 0)
    predictions = torch.ones(2, 50_000, 1)
    loss = float(task.loss(predictions, batch))
    assert task.baseline == pytest.approx(1 / 6)
    assert loss == pytest.approx(1 / 6, abs=5 * ((1 / 15 - 1 / 36) / 50_000) ** 0.5)

    metric = task.metrics()["mse"]
    metric.update(batch.inside(predictions), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(loss, rel=1e-5)


def test_errors_are_squared() -> None:
    predictions, targets = torch.tensor([[[3.0], [0.5]]]), torch.tensor([[[1.0], [1.0]]])
    assert make(2).errors(predictions, targets).tolist() == [[4.0, 0.25]]


def test_two_values_need_two_timesteps() -> None:
    with pytest.raises(ValueError, match=r"^length must be an integer >= 2, got 1; two values must be marked$"):
        make(1)
