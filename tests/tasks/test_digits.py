"""Digits drawn by the task, found again by laying every digit at every place."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bptt.tasks.digits import FONT, Digits


def make(size: int = 10, batch_size: int = 30, **options: Any) -> Digits:
    return Digits(
        size=size, batch_size=batch_size, seed=1, train_batches=2, validation_batches=1, test_batches=1, **options
    )


def strokes(digit: int, wide: bool) -> set[tuple[int, int]]:
    """(row, column) of the inked pixels, read from the table of letters."""
    rows = FONT.strip().splitlines()
    narrow = {(row, column) for row in range(7) for column in range(5) if rows[row][6 * digit + column] == "#"}
    return narrow | {(row, column + 1) for row, column in narrow} if wide else narrow


def matches(ink: set[tuple[int, int]], size: int) -> list[tuple[int, bool, int, int]]:
    """Every digit, width and place that makes just this ink."""
    found = []
    for digit in range(10):
        for wide in (False, True):
            for top in range(size - 6):
                for left in range(size - 5):
                    if {(top + row, left + column) for row, column in strokes(digit, wide)} == ink:
                        found.append((digit, wide, top, left))
    return found


def images(task: Digits, pixels: Tensor) -> Tensor:
    """Sequences read row by row as images (B, size, size)."""
    return pixels.squeeze(-1).T.reshape(-1, task.size, task.size)


def test_every_image_shows_its_digit_and_no_other() -> None:
    """Without noise, an image has a single brightness."""
    task = make(noise=0)
    batch = task.batch("train", 0)
    for image, label in zip(images(task, batch.inputs), batch.targets[-1].tolist()):
        ((digit, _, _, _),) = matches({(row, column) for row, column in image.nonzero().tolist()}, 10)
        assert digit == label
        (brightness,) = set(image[image > 0].tolist())
        assert 0.5 <= brightness <= 1
    assert batch.weights() == [0] * 99 + [30]


def test_digits_places_and_widths_vary() -> None:
    task = make(size=8, batch_size=1000, noise=0)
    batch = task.batch("train", 0)
    counts = batch.targets[-1].int().bincount(minlength=10)
    assert int((counts - 100).abs().max()) < 5 * math.sqrt(1000 * 0.09)
    ones = images(task, batch.inputs)[batch.targets[-1] == 1]
    found = {matches({(row, column) for row, column in image.nonzero().tolist()}, 8)[0] for image in ones}
    assert found == {(1, wide, top, left) for wide in (False, True) for top in (0, 1) for left in (0, 1, 2)}


def test_noise_has_its_standard_deviation() -> None:
    """Beside the digit the pixels are half-normal: half of them 0, mean σ/√(2π)."""
    clean, noisy = (make(size=14, batch_size=200, noise=noise).batch("train", 0).inputs for noise in (0, 0.1))
    beside = noisy[clean == 0]
    error = 5 / math.sqrt(len(beside))
    assert float((beside == 0).double().mean()) == pytest.approx(0.5, abs=error / 2)
    assert float(beside.mean()) == pytest.approx(0.1 / math.sqrt(2 * math.pi), abs=0.06 * error)
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def test_permuted_pixels_are_in_one_order() -> None:
    straight = make().batch("test", 0).inputs
    task, other = make(permuted=True), make(permuted=True, permutation_seed=1)
    for each in (task, other):
        assert sorted(each.order.tolist()) == list(range(100))
        assert torch.equal(each.batch("test", 0).inputs, straight[each.order])
    assert len({tuple(order.tolist()) for order in (make().order, task.order, other.order)}) == 3


def test_a_guess_costs_the_baseline() -> None:
    task = make()
    batch = task.batch("validation", 0)
    assert float(task.loss(torch.zeros(100, 30, 10), batch)) == pytest.approx(task.baseline) == pytest.approx(2.302585)
    answers = torch.nn.functional.one_hot(batch.targets.long(), 10).float()
    answers[-1, :6] *= -1
    metric = task.metrics()["accuracy"]
    metric.update(batch.inside(answers), batch.inside(batch.targets))
    assert float(metric.compute()) == pytest.approx(24 / 30)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^size must be an integer >= 7, got 6; a digit is 7 pixels high$"):
        make(size=6)
    with pytest.raises(ValueError, match=r"^noise must be a number in \[0, inf\), got -0.1$"):
        make(noise=-0.1)
