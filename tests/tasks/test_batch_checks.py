"""A task whose batches break the contract says so in one line."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.fixed_batches import FixedBatches
from torchmetrics import ClasswiseWrapper, MeanSquaredError, Metric, MinMaxMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MultilabelF1Score

from bptt.tasks import Batch, Split
from bptt.tasks.base import Task, cross_entropy
from bptt.tasks.batch_checks import check_batch, check_task


def unchecked(**fields: Any) -> Batch:
    """A batch past the tests' own checks of shapes, as a user's code would make it."""
    batch = Batch.__new__(Batch)
    for name in ("inputs", "targets", "mask", "reset"):
        object.__setattr__(batch, name, fields.get(name))
    return batch


def task(**options: Any) -> Task:
    """Regression of 2 numbers from 3, or classes below 2; T = 5, B = 4."""
    made = FixedBatches([Batch(torch.randn(5, 4, 3), torch.randn(5, 4, 2))])
    for name, value in options.items():
        setattr(made, name, value)
    return made


X, Y = torch.randn(5, 4, 3), torch.randn(5, 4, 2)
NAN = X.clone()
NAN[2, 1, 0] = float("nan")
CLASSES = torch.randint(2, (5, 4))
INFINITE = torch.full((5, 4, 2), float("inf"))


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        (
            {"inputs": X.transpose(0, 1)},
            {},
            r"inputs .* must be \(T, B, D\) with B = 4.*got \(4, 5, 3\); time comes first",
        ),
        ({"inputs": torch.randn(5, 3, 3)}, {}, r"with B = 4, D = 3, .* got \(5, 3, 3\)$"),
        ({"inputs": torch.randn(5, 4, 7)}, {}, r"D = 3, .* got \(5, 4, 7\)$"),
        ({"inputs": torch.randn(5)}, {}, r"got \(5,\)$"),
        ({"inputs": X.long()}, {}, "must be floating point if they are features"),
        ({"inputs": NAN}, {}, r"inputs .* must be finite, got nan at \[2, 1, 0\]"),
        ({"inputs": torch.full((5, 4), 3)}, {}, "token ids .* must be from 0 to 2, got 3 to 3"),
        ({"inputs": torch.zeros(5, 4)}, {}, "token ids .* must be integers, got torch.float32; features are"),
        ({"mask": torch.ones(5, 4)}, {}, r"the mask .* must be boolean \(5, 4\), got torch.float32 \(5, 4\)"),
        ({"mask": torch.ones(4, 5, dtype=torch.bool)}, {}, r"the mask .* got torch.bool \(4, 5\)"),
        ({"reset": torch.ones(5, dtype=torch.bool)}, {}, r"reset .* must be boolean \(5, 4\) or \(4,\)"),
        ({"targets": torch.randn(4, 5, 2)}, {}, r"targets .* T and B \(5, 4\), got \(4, 5, 2\)"),
        ({"targets": INFINITE}, {}, r"targets with a loss .* must be finite, got inf at \[0, 0\]"),
        ({"targets": INFINITE}, {"missing_targets": True}, "targets with a loss .* must be finite, got inf"),
        ({"targets": torch.randn(5, 4, 9)}, {}, r"errors .* must be \(5, 4\), one for each timestep, .*\(5, 4, 9\)"),
        ({"targets": CLASSES + 1}, {"errors": cross_entropy}, "class ids .* must be from 0 to 1, got 1 to 2"),
        ({"targets": CLASSES - 1}, {"errors": cross_entropy}, "class ids .* must be from 0 to 1, got -1 to 0"),
        ({}, {"errors": lambda predictions, _: predictions.square()}, r"errors .* got \(5, 4, 2\)"),
        ({}, {"errors": lambda predictions, _: predictions[..., 0].log()}, "errors .* must be finite .*, got -inf"),
        ({}, {"errors": lambda *_: None}, r"errors .* must be \(5, 4\), one for each timestep, .* got None"),
        ({"inputs": X.numpy()}, {}, "inputs .* must be a tensor, got ndarray"),
        ({"targets": None}, {}, "targets .* must be a tensor, got NoneType"),
    ],
)
def test_a_wrong_batch_is_named(fields: dict[str, Any], options: dict[str, Any], message: str) -> None:
    batch = unchecked(**{"inputs": X, "targets": Y, **fields})
    with pytest.raises(ValueError, match=message) as refused:
        check_batch(task(**options), batch, "train")
    assert "FixedBatches's first train batch" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": MeanSquaredError()}, "metrics of FixedBatches must be of other names than loss, .*got 'loss'"),
        ([MeanSquaredError()], "metrics of FixedBatches must be metrics of torchmetrics by their names"),
        ({"mse": torch.nn.MSELoss()}, "must be metrics of torchmetrics by their names, got {'mse': 'MSELoss'}"),
        (None, "metrics of FixedBatches must be metrics of torchmetrics by their names, got None"),
        (
            {"f1": MultilabelF1Score(9)},
            r"metric f1 of FixedBatches's first train .* \(20, 2\) and \(20, 2\), got ",
        ),
    ],
)
def test_wrong_metrics_are_named(metrics: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_task(task(metrics=lambda: metrics))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": lambda *_: None}, r"batch\('train', 0\) of FixedBatches must be a Batch, got None"),
        ({"batch": lambda *_: (1, 2)}, r"batch\('train', 0\) of FixedBatches must be a Batch, got \(1, 2\)"),
        ({"num_batches": lambda _: None}, r"num_batches\('train'\) of FixedBatches must be .*, got None"),
        ({"num_batches": lambda _: 3.5}, r"num_batches\('train'\) of FixedBatches must be .*, got 3\.5"),
    ],
)
def test_a_method_that_returns_something_else_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_task(task(**options))


def test_a_right_batch_passes() -> None:
    outside = torch.ones(5, 4, dtype=torch.bool)
    outside[2, 1] = False
    masked = torch.where(outside.unsqueeze(-1), Y, float("nan"))
    check_batch(task(), unchecked(inputs=X, targets=masked, mask=outside), "validation")
    check_batch(
        task(missing_targets=True, errors=lambda *_: torch.zeros(5, 4)), unchecked(inputs=X, targets=NAN), "test"
    )
    check_task(task())


def test_a_split_without_any_loss_is_named() -> None:
    """A first batch without a loss is allowed, if another one has one."""
    empty = Batch(X, Y, torch.zeros(5, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"the mask .* must be true somewhere, got no .*; let each part have known"):
        check_task(FixedBatches([empty, empty]))
    check_task(FixedBatches([empty, Batch(X, Y)]))


@pytest.mark.parametrize("name", ["inputs", "targets"])
def test_random_batches_are_named(name: str) -> None:
    """Values without a loss may differ."""

    class Random(FixedBatches):
        def batch(self, split: Split, index: int) -> Batch:
            batch = super().batch(split, index)
            return replace(batch, **{name: torch.randn_like(getattr(batch, name))})

    with pytest.raises(ValueError, match=rf"{name} of Random's first train batch must be the same .*generator"):
        check_task(Random([Batch(X, Y)]))
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[0] = False

    class RandomOutside(FixedBatches):
        def batch(self, split: Split, index: int) -> Batch:
            batch = super().batch(split, index)
            return replace(batch, targets=torch.where(mask.unsqueeze(-1), batch.targets, torch.rand(())))

    check_task(RandomOutside([Batch(X, Y, mask)]))


@pytest.mark.parametrize(
    "metric",
    [ClasswiseWrapper(MulticlassAccuracy(2, average=None)), MinMaxMetric(MulticlassAccuracy(2)), MulticlassAUROC(2)],
)
def test_metrics_of_several_numbers_by_name_pass(metric: Metric) -> None:
    classes = task(errors=cross_entropy, metrics=lambda: {"own": metric})
    classes.batches["train"] = [Batch(X, CLASSES)]  # type: ignore[attr-defined]  # of FixedBatches
    check_task(classes)


def test_metrics_that_need_more_than_one_batch_pass() -> None:
    class RatioError(MeanSquaredError):
        def compute(self) -> Any:
            raise ZeroDivisionError

    check_task(task(metrics=lambda: {"ratio": RatioError()}))
