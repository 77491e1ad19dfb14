"""Bits that depend on those 3 and 8 timesteps before, over the borders of batches."""

import math
from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from bptt.tasks.lag_bits import LagBits


def make(length: int, batch_size: int) -> LagBits:
    return LagBits(length=length, batch_size=batch_size, seed=1, train_batches=4, validation_batches=2, test_batches=2)


class Seen(NamedTuple):
    """Targets Y and inputs X at lags 0, 3 and 8, of all timesteps from the 9th on, over all batches in one."""

    target: Tensor
    now: Tensor
    near: Tensor
    far: Tensor


def seen(length: int, batch_size: int, timesteps: int) -> Seen:
    """Indices go on over epochs of four batches."""
    task = make(length, batch_size)
    batches = [task.batch("train", index) for index in range(timesteps // length)]
    inputs = torch.cat([batch.inputs for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    return Seen(targets[8:], inputs[8:], inputs[5:-3], inputs[:-8])


@pytest.mark.parametrize("length", [1, 3, 8, 40])
def test_targets_follow_the_law_over_borders_of_batches(length: int) -> None:
    """1 always where X_{t−3} = 1 and X_{t−8} = 0; the other frequencies, within five standard errors."""
    target, _, near, far = seen(length, 40, 120)
    for one, other in product((0, 1), repeat=2):
        found = target[(near == one) & (far == other)].double()
        chance = 0.5 + 0.5 * one - 0.25 * other
        assert len(found) > 800
        assert float(found.mean()) == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / len(found)))


def test_inputs_are_fair_and_independent_of_the_target() -> None:
    target, now, _, _ = seen(50, 100, 200)
    error = 5 * 0.5 / math.sqrt(now.numel())
    assert float(now.double().mean()) == pytest.approx(0.5, abs=error)
    both = ((now - 0.5) * (target - 0.625)).mean()
    assert abs(float(both)) < error


def entropy(chance: float) -> float:
    return -sum(share * math.log(share) for share in (chance, 1 - chance) if share)


def test_plateaus_are_the_conditional_entropies() -> None:
    law = {(near, far): 0.5 + 0.5 * near - 0.25 * far for near, far in product((0, 1), repeat=2)}
    neither = entropy(sum(law.values()) / 4)
    first = sum(entropy((law[near, 0] + law[near, 1]) / 2) for near in (0, 1)) / 2
    both = sum(map(entropy, law.values())) / 4
    assert LagBits.plateaus == pytest.approx((neither, first, both), abs=1e-4)


def test_who_knows_a_dependency_reaches_its_plateau() -> None:
    """Predictions only from the inputs of the batches; within five standard errors of a loss below 1.4 nats."""
    target, _, near, far = seen(50, 200, 400)
    task = make(50, 200)
    chances = (torch.full(target.shape, 0.625), 0.375 + 0.5 * near, 0.5 + 0.5 * near - 0.25 * far)
    for chance, plateau in zip(chances, task.plateaus):
        predictions = torch.stack([1 - chance, chance], dim=-1).log().clamp(min=-100)
        loss = task.errors(predictions, target)
        assert float(loss.mean()) == pytest.approx(plateau, abs=5 * float(loss.std()) / math.sqrt(loss.numel()))


def test_the_law_holds_from_the_first_timestep_on() -> None:
    """The stream behaves as if bits preceded it: P(Y_1 = 1) = .625, not .5."""
    batch = make(3, 20_000).batch("validation", 0)
    assert batch.targets.double().mean(1).tolist() == pytest.approx([0.625] * 3, abs=5 * 0.485 / math.sqrt(20_000))


def test_state_is_initial_only_at_the_very_beginning() -> None:
    task = make(5, 2)
    for index in range(9):
        reset = task.batch("train", index).reset
        assert reset is not None
        assert reset.tolist() == [index == 0] * 2
