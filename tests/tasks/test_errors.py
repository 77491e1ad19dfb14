"""The errors and the mask that tasks share, against sums written out."""

import math

import pytest
import torch

from bptt.tasks.base import binary_cross_entropy, last_timestep, squared_error
from bptt.tasks.metrics import LabelAccuracy


def test_squared_error_is_summed_over_outputs() -> None:
    predictions, targets = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    errors = squared_error(predictions, targets)
    for t in range(3):
        for b in range(2):
            expected = sum((float(predictions[t, b, v]) - float(targets[t, b, v])) ** 2 for v in range(4))
            assert float(errors[t, b]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.bool, torch.float32])
def test_binary_cross_entropy_is_the_log_likelihood_of_all_labels(kind: torch.dtype) -> None:
    predictions = torch.randn(3, 2, 4, dtype=torch.double)
    targets = torch.randint(2, (3, 2, 4)).to(kind)
    errors = binary_cross_entropy(predictions, targets)
    for t in range(3):
        for b in range(2):
            likelihood = 1.0
            for v in range(4):
                one = 1 / (1 + math.exp(-float(predictions[t, b, v])))
                likelihood *= one if targets[t, b, v] else 1 - one
            assert float(errors[t, b]) == pytest.approx(-math.log(likelihood), rel=1e-10)


def test_binary_cross_entropy_of_large_odds_is_finite() -> None:
    errors = binary_cross_entropy(torch.tensor([[[1000.0], [-1000.0]]]), torch.tensor([[[0], [0]]]))
    assert errors.tolist() == [[1000.0, 0.0]]


def test_last_timestep() -> None:
    assert last_timestep(3, 2).tolist() == [[False, False], [False, False], [True, True]]


def test_label_accuracy_reads_log_odds_even_where_they_look_like_probabilities() -> None:
    metric = LabelAccuracy()
    metric.update(torch.tensor([[0.2, 0.4], [0.9, 0.1]]), torch.tensor([[1, 1], [1, 0]], dtype=torch.uint8))
    assert float(metric.compute()) == pytest.approx(3 / 4)
    metric.update(torch.tensor([[-0.2, 7.0]]), torch.tensor([[1, 0]], dtype=torch.uint8))
    assert float(metric.compute()) == pytest.approx(3 / 6)
