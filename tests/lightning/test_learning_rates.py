"""Learning rates: which update is made with which."""

from functools import partial
from typing import Any

import pytest
import torch
from support.fixed_batches import FixedBatches, random_batch
from support.training import Steps, fit, make_module, stream
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau

from bptt.lightning.learning_rates import constant, decay_after, inverse_root
from bptt.lightning.module import LearningRateSchedule


def rates(schedule: LearningRateSchedule | None, *, task: FixedBatches | None = None, epochs: int = 2) -> list[float]:
    """The learning rate of every update; by default 2 epochs of 2 batches of 3 updates, from 0.1."""
    steps = Steps()
    fit(
        make_module(task or stream([12, 12]), schedule=schedule),
        callbacks=[steps],
        max_epochs=epochs,
        limit_val_batches=0,
    )
    return steps.rates


halves = partial(ExponentialLR, gamma=0.5)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (None, [0.1] * 12),
        (LearningRateSchedule(constant), [0.1] * 12),
        (LearningRateSchedule(constant, "epoch"), [0.1] * 12),
        (LearningRateSchedule(halves), [0.1 * 0.5**k for k in range(12)]),
        (LearningRateSchedule(halves, "update"), [0.1 * 0.5**k for k in range(12)]),
        (LearningRateSchedule(halves, "epoch"), [0.1] * 6 + [0.05] * 6),
        (
            LearningRateSchedule(partial(decay_after, factor=0.5, start=3)),
            [0.1] * 3 + [0.1 * 0.5**k for k in range(1, 10)],
        ),
        (LearningRateSchedule(partial(decay_after, factor=0.5, start=1), "epoch"), [0.1] * 6 + [0.05] * 6),
        (LearningRateSchedule(partial(decay_after, factor=0.5, start=2), "epoch"), [0.1] * 12),
        (LearningRateSchedule(partial(inverse_root, lag=0.5)), [0.1 / (1 + 0.5 * k**0.5) for k in range(12)]),
    ],
)
def test_rate_of_every_update(schedule: LearningRateSchedule | None, expected: list[float]) -> None:
    assert rates(schedule) == pytest.approx(expected)


def test_rate_goes_down_along_a_cosine_over_updates() -> None:
    got = rates(LearningRateSchedule(partial(CosineAnnealingLR, T_max=12)))
    assert got == pytest.approx(
        [0.05 * (1 + torch.tensor(torch.pi * k / 12).cos().item()) for k in range(12)], rel=1e-5
    )


def test_a_schedule_shorter_than_the_run_is_named() -> None:
    """Two epochs of 6 updates, and a scheduler of a fixed length."""
    whole = LearningRateSchedule(partial(OneCycleLR, max_lr=0.1, total_steps=12))
    assert len(rates(whole)) == 12
    shorter = LearningRateSchedule(partial(OneCycleLR, max_lr=0.1, total_steps=11))
    with pytest.raises(ValueError, match=r"scheduler\.scheduler must be at least as long as the run, .* got: Tried to"):
        rates(shorter)


def test_char_rnn_decays_after_its_tenth_epoch() -> None:
    """Karpathy 2015: ten epochs at the first rate, then × .97 at the end of the tenth and of each one after it."""
    got = rates(LearningRateSchedule(partial(decay_after, factor=0.97, start=10), "epoch"), task=stream([4]), epochs=13)
    assert got == pytest.approx([0.1] * 10 + [0.1 * 0.97**k for k in (1, 2, 3)])


def test_a_chunk_without_loss_is_no_update() -> None:
    mask = torch.zeros(12, 3, dtype=torch.bool)
    mask[[0, 11]] = True
    assert rates(LearningRateSchedule(halves), task=FixedBatches([random_batch(12, 3, mask=mask)])) == pytest.approx(
        [0.1, 0.05, 0.025, 0.0125]
    )


def test_rate_follows_the_loss_of_validations() -> None:
    """Two validations in each of 3 epochs; with a threshold that no loss passes, every one after the first divides."""
    plateau = partial(ReduceLROnPlateau, factor=0.5, patience=0, threshold=1e9, threshold_mode="abs")
    steps, batches = Steps(), [random_batch(12, 3) for _ in range(2)]
    module = make_module(FixedBatches(batches, batches[:1]), schedule=LearningRateSchedule(plateau, "validation"))
    trainer = fit(module, callbacks=[steps], max_epochs=3, val_check_interval=0.5)
    assert steps.rates == pytest.approx([0.1 * 0.5 ** max(0, k // 3 - 1) for k in range(18)])
    state = trainer.lr_scheduler_configs[0].scheduler.state_dict()
    assert state["last_epoch"] == 6
    assert state["best"] >= float(trainer.callback_metrics["validation/loss"])
    assert rates(LearningRateSchedule(halves, "validation")) == [0.1] * 12  # without validations


def test_unknown_interval_is_refused() -> None:
    word: Any = "batch"
    with pytest.raises(ValueError, match="interval must be update or validation or epoch, got 'batch'"):
        make_module(stream([4]), schedule=LearningRateSchedule(constant, word))


@pytest.mark.parametrize("returned", [None, 0.1])
def test_a_function_that_returns_no_scheduler_is_named(returned: Any) -> None:
    with pytest.raises(ValueError, match=r"^scheduler\.scheduler must be a function that returns a scheduler of torch"):
        rates(LearningRateSchedule(lambda _: returned))
