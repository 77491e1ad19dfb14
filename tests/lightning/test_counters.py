"""Counters of training progress, and x-coordinates of logged points."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fixed_batches import FixedBatches, random_batch
from support.training import fit, losses, make_module, stream
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bptt.estimators import Adaptive, Chunked, Full
from bptt.lightning.loggers import EventLogger
from bptt.lightning.module import BPTTModule


@pytest.mark.parametrize(
    ("estimator", "updates"), [(Chunked(4), 3 + 2), (Chunked(4, update="sequence"), 2), (Full(4), 2), (Full(), 2)]
)
def test_counters(estimator: Any, updates: int) -> None:
    module = make_module(stream([10, 7], batch_size=3), estimator=estimator)
    fit(module, max_epochs=2, limit_val_batches=0)
    assert module.counters.updates == 2 * updates
    assert module.counters.batches == 2 * 2
    assert module.counters.timesteps == 2 * (10 + 7) * 3
    assert module.step_axis == 2 * (10 + 7)


def test_a_chunk_without_loss_counts_only_its_timesteps() -> None:
    mask = torch.zeros(12, 2, dtype=torch.bool)
    mask[-1] = True
    module = make_module(FixedBatches([random_batch(12, 2, mask=mask)]))
    fit(module, limit_val_batches=0)
    assert (module.counters.updates, module.counters.timesteps) == (1, 24)


class Curves:
    """Scalars of a TensorBoard folder, each a list of (x, y)."""

    def __init__(self, folder: Path):
        self.events = EventAccumulator(str(folder))
        self.events.Reload()

    def __getitem__(self, name: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in self.events.Scalars(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.events.Tags()["scalars"])


def logged(module: BPTTModule, folder: Path, **options: Any) -> Curves:
    logger = EventLogger(folder)
    fit(module, logger=logger, **options)
    return Curves(folder)


def test_x_axis_is_timesteps_of_each_stream(tmp_path: Path) -> None:
    """Every second update: after timesteps 8 and 14 (10 + 4) of the first epoch, and so on over epochs."""
    module = make_module(stream([10, 6], batch_size=3))
    curves = logged(module, tmp_path, log_every_n_steps=2, max_epochs=2, limit_val_batches=0)
    stops = [4, 8, 10, 14, 16, 20, 24, 26, 30, 32]
    assert [x for x, _ in curves["train/loss"]] == stops[1::2]
    assert curves["progress/updates"] == [(x, float(y)) for x, y in zip(stops[1::2], (2, 4, 6, 8, 10))]
    assert curves["progress/timesteps"] == [(x, 3.0 * x) for x in stops[1::2]]
    assert curves["progress/batches"] == [(x, float(y)) for x, y in zip(stops[1::2], (0, 1, 2, 2, 3))]
    assert [y for _, y in curves["train/learning_rate"]] == pytest.approx([0.1] * 5)


def test_logged_loss_is_the_mean_since_the_last_point(tmp_path: Path) -> None:
    """Over losses, not over updates: a chunk with few losses counts little."""
    mask = torch.rand(16, 3) < 0.4
    mask[4:8] = True
    task = FixedBatches([random_batch(8, 3, mask=mask[:8]), random_batch(8, 3, mask=mask[8:])])
    module = make_module(task)
    curves = logged(module, tmp_path, log_every_n_steps=2, limit_val_batches=0)
    counts = [int(part.sum()) for part in mask.split(4)]
    weighted = [loss * count for loss, count in zip(losses(module), counts)]
    expected = [sum(weighted[:2]) / sum(counts[:2]), sum(weighted[2:]) / sum(counts[2:])]
    steps, values = zip(*curves["train/loss"])
    assert steps == (8, 16)
    assert values == pytest.approx(expected, rel=1e-6)


def test_the_chosen_chunk_size_is_a_curve(tmp_path: Path) -> None:
    """The logged chunk size is that of the update: two neighbouring points are one chunk apart, or its remainder."""
    torch.manual_seed(1)
    estimator = Adaptive(0.3, lags=10, every_n_batches=1, num_samples=2)
    module = make_module(stream([12] * 4), estimator=estimator)
    curves = logged(module, tmp_path, log_every_n_steps=1, limit_val_batches=0)
    chosen = curves["estimator/chunk_size"]
    places = [x for x, _ in chosen]
    assert len({size for _, size in chosen}) > 1
    for before, (after, size) in zip([0, *places], chosen):
        assert after - before == min(size, 12 - before % 12)


@pytest.mark.parametrize("chunk_size", [2, 3, 6, 50])
def test_curves_of_all_chunk_sizes_share_their_x_axis(tmp_path: Path, chunk_size: int) -> None:
    """Validations after every batch of 6 timesteps are logged at 6, 12, 18, for any number of updates."""
    task = stream([6, 6, 6])
    task.batches["validation"] = [random_batch(5, 3)]
    module = make_module(task, estimator=Chunked(chunk_size))
    curves = logged(module, tmp_path, val_check_interval=1, log_every_n_steps=1)
    assert [x for x, _ in curves["validation/loss"]] == [6, 12, 18]
    assert [x for x, _ in curves["validation/mse"]] == [6, 12, 18]
    assert curves["train/loss"][-1][0] == 18


def test_no_curve_lies_over_another_counter(tmp_path: Path) -> None:
    """Lightning would log `epoch`, and its own x-axis, for whatever goes through `self.log`."""
    task = stream([6])
    task.batches["validation"] = [random_batch(5, 3)]
    curves = logged(make_module(task), tmp_path, log_every_n_steps=1)
    assert set(curves) == {
        *(f"progress/{name}" for name in ("updates", "batches", "timesteps")),
        *("train/loss", "train/learning_rate", "validation/loss", "validation/mse"),
    }
