"""Contract of every task, tested on each task in conf/."""

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_tasks import TASKS, small_task
from torch import Tensor

from bptt.tasks import SPLITS, Batch, SeededTask, Task
from bptt.tasks.influence_balancing import InfluenceBalancing

FIXED = (InfluenceBalancing,)  # tasks without chance: one and the same sequence always
FIELDS = ("inputs", "targets", "mask", "reset")


@pytest.fixture(scope="module", params=TASKS)
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Task]:
    """Builds one of the tasks, small, from scratch at every call."""
    folder = tmp_path_factory.mktemp(request.param)
    return lambda *overrides: small_task(request.param, folder, *overrides)


@pytest.fixture(scope="module")
def task(make: Callable[..., Task]) -> Task:
    return make()


def same(first: Batch, second: Batch) -> bool:
    pairs = [(getattr(first, field), getattr(second, field)) for field in FIELDS]
    return all(equal(one, other) if one is not None else other is None for one, other in pairs)


def equal(one: Tensor, other: Tensor) -> bool:
    """Every number, and every missing value, in the same place."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def predictions_for(task: Task, batch: Batch) -> Tensor:
    return torch.randn(batch.num_timesteps, batch.batch_size, task.output_size)


def test_tasks_are_found() -> None:
    assert {"adding", "copy_memory", "text"} <= set(TASKS)


def test_shapes(task: Task) -> None:
    for split in SPLITS:
        for index in range(task.num_batches(split)):
            batch = task.batch(split, index)
            shape = (batch.num_timesteps, task.batch_size)
            assert batch.batch_size == task.batch_size
            assert 1 <= batch.num_timesteps <= task.length
            assert batch.inputs.shape in (shape, (*shape, task.input_size))
            assert batch.targets.shape[:2] == shape
            if batch.mask is not None:
                assert (batch.mask.dtype, batch.mask.shape) == (torch.bool, shape)
                assert batch.mask.any()
            if batch.reset is not None:
                assert (batch.reset.dtype, batch.reset.shape) == (torch.bool, (task.batch_size,))
        assert task.num_batches(split) > 0


def test_token_ids_and_classes_are_in_range(task: Task) -> None:
    for split in SPLITS:
        for index in range(task.num_batches(split)):
            batch = task.batch(split, index)
            if not batch.inputs.is_floating_point():
                assert int(batch.inputs.min()) >= 0
                assert int(batch.inputs.max()) < task.input_size
            if not batch.targets.is_floating_point():
                labels = batch.targets.dim() == 3 or task.output_size == 1  # each 0 or 1; else one class of V
                assert int(batch.targets.min()) >= 0
                assert int(batch.targets.max()) < (2 if labels else task.output_size)


def test_a_batch_is_the_same_at_every_call_and_in_every_copy_of_the_task(make: Callable[..., Task], task: Task) -> None:
    other = make()
    for split in SPLITS:
        for index in reversed(range(task.num_batches(split))):
            torch.manual_seed(index)  # the global generator has no say
            first = task.batch(split, index)
            assert same(first, task.batch(split, index))
            assert same(first, other.batch(split, index))


def test_drawing_a_batch_does_not_change_the_global_random_state(task: Task) -> None:
    before = torch.get_rng_state()
    task.batch("train", 0)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_differ_by_index_and_split(task: Task) -> None:
    if type(task) in FIXED:
        assert torch.equal(task.batch("train", 0).inputs, task.batch("test", 0).inputs)
        return
    batches = [task.batch(split, index) for split in SPLITS for index in range(min(2, task.num_batches(split)))]
    inputs = [batch.inputs for batch in batches]
    assert len(inputs) >= 4
    for position, one in enumerate(inputs):
        assert not any(torch.equal(one, other) for other in inputs[:position])


def test_batches_follow_from_the_seed_and_synthetic_ones_never_repeat(make: Callable[..., Task], task: Task) -> None:
    if not isinstance(task, SeededTask):
        assert same(make().batch("train", 0), task.batch("train", 0))
        return
    assert same(make("seed=1").batch("train", 0), task.batch("train", 0))
    assert not torch.equal(make("seed=0").batch("train", 0).inputs, task.batch("train", 0).inputs)
    after_an_epoch = task.batch("train", task.num_batches("train"))
    assert not torch.equal(after_an_epoch.inputs, task.batch("train", 0).inputs)


def test_batch_indices_continue_over_epochs(task: Task) -> None:
    """Every index has a batch like those of the first epoch, of as many timesteps as it likes up to `length`."""
    epoch = task.num_batches("train")
    for index in range(epoch):
        batch, first = task.batch("train", 5 * epoch + index), task.batch("train", index)
        assert batch.inputs.shape[1:] == first.inputs.shape[1:]
        assert batch.targets.shape[1:] == first.targets.shape[1:]
        assert 1 <= batch.num_timesteps <= task.length


def test_errors_have_one_value_a_timestep(task: Task) -> None:
    batch = task.batch("train", 0)
    errors = task.errors(predictions_for(task, batch), batch.targets)
    assert errors.shape == batch.inputs.shape[:2]
    assert errors.isfinite().all()
    assert (errors >= 0).all()


def test_loss_is_the_mean_error_inside_the_mask(task: Task) -> None:
    batch = task.batch("validation", 0)
    predictions = predictions_for(task, batch).double()
    errors = task.errors(predictions, batch.targets)
    inside = errors if batch.mask is None else errors[batch.mask]
    torch.testing.assert_close(task.loss(predictions, batch), inside.mean(), rtol=1e-12, atol=0)


def test_loss_ignores_what_lies_outside_the_mask(task: Task) -> None:
    batch = task.batch("train", 0)
    if batch.mask is None:
        assert batch.weights() == [task.batch_size] * batch.num_timesteps
        return
    predictions = predictions_for(task, batch)
    wild = torch.where(batch.mask.unsqueeze(-1), predictions, 1e10).requires_grad_()
    loss = task.loss(wild, batch)
    assert loss == task.loss(predictions, batch)
    (gradient,) = torch.autograd.grad(loss, wild)
    assert (gradient[~batch.mask] == 0).all()


def test_loss_is_computed_in_single_precision_at_least(task: Task) -> None:
    batch = task.batch("train", 0)
    predictions = predictions_for(task, batch)
    assert task.loss(predictions.bfloat16(), batch).dtype == torch.float32
    assert task.loss(predictions.double(), batch).dtype == torch.float64


@given(size=st.integers(1, 40), index=st.integers(0, 2), seed=st.integers(0, 2**16))
def test_chunk_losses_weighted_by_their_masks_add_up(task: Task, size: int, index: int, seed: int) -> None:
    batch = task.batch("train", index % task.num_batches("train"))
    torch.manual_seed(seed)
    predictions = predictions_for(task, batch).double()
    weights, total, seen = batch.weights(), torch.zeros(()), 0
    for start, chunk in batch.split(size):
        assert start == seen
        assert 1 <= chunk.num_timesteps <= size
        seen += chunk.num_timesteps
        assert torch.equal(chunk.inputs, batch.inputs[start:seen])
        assert sum(chunk.weights()) == sum(weights[start:seen])
        if weight := sum(chunk.weights()):
            total = total + weight * task.loss(predictions[start:seen], chunk)
    assert seen == batch.num_timesteps
    torch.testing.assert_close(total / sum(weights), task.loss(predictions, batch), rtol=1e-12, atol=1e-12)


def test_weights_count_the_losses_of_each_timestep(task: Task) -> None:
    batch = task.batch("test", 0)
    mask = torch.ones(batch.inputs.shape[:2]) if batch.mask is None else batch.mask
    assert batch.weights() == [int(row.sum()) for row in mask]


def test_columns_split_equals_the_whole(task: Task) -> None:
    batch = task.batch("train", 0)
    parts = [batch.columns(slice(start, start + 2)) for start in range(0, batch.batch_size, 2)]
    assert [part.batch_size for part in parts] == [2, 2]
    for field in FIELDS:
        whole = getattr(batch, field)
        pieces = [getattr(part, field) for part in parts]
        if whole is None:
            assert pieces == [None, None]
        else:
            assert equal(torch.cat(pieces, dim=0 if field == "reset" else 1), whole)


def test_moving_a_batch_moves_every_part(task: Task) -> None:
    batch = task.batch("train", 0)
    assert same(batch.to("cpu", non_blocking=True), batch)
    moved = batch.to("meta")
    for field in FIELDS:
        before, after = getattr(batch, field), getattr(moved, field)
        if before is None:
            assert after is None
        else:
            assert (after.device.type, after.shape, after.dtype) == ("meta", before.shape, before.dtype)


def test_metrics_update_compute_and_reset(task: Task) -> None:
    """Fed chunk by chunk as evaluation does, equal to fed at once, and as good as new after a reset."""
    first, second = task.batch("train", 0), task.batch("train", 1)
    forecasts = [predictions_for(task, batch) for batch in (first, second)]
    assert task.metrics()
    for name, metric in task.metrics().items():
        whole = task.metrics()[name]
        whole.update(second.inside(forecasts[1]), second.inside(second.targets))
        expected = whole.compute()
        assert expected.shape == ()
        assert expected.isfinite()

        metric.update(first.inside(forecasts[0]), first.inside(first.targets))
        assert metric.compute().isfinite()
        metric.reset()
        for start, chunk in second.split(5):
            if sum(chunk.weights()):
                part = forecasts[1][start : start + chunk.num_timesteps]
                metric.update(chunk.inside(part), chunk.inside(chunk.targets))
        torch.testing.assert_close(metric.compute(), expected)


def test_predictions_as_a_table(task: Task) -> None:
    """Columns of one length, the first ones plain words and numbers, one for each output among them."""
    predictions = predictions_for(task, task.batch("validation", 0))
    table = task.tabulate(predictions, "validation", 0)
    (size,) = {len(column) for column in table.values()}
    assert size > 0
    assert len(task.prediction_names) == task.output_size
    assert task.denormalise(predictions).shape == predictions.shape
    if type(task).tabulate is Task.tabulate:
        batch = task.batch("validation", 0)
        mask = torch.ones(batch.inputs.shape[:2], dtype=torch.bool) if batch.mask is None else batch.mask
        found = [column for name, column in table.items() if name.startswith("target")]
        expected = batch.targets[mask].view(size, -1).T
        assert torch.equal(torch.tensor(found, dtype=expected.dtype), expected)


def test_encoding_is_plain(task: Task) -> None:
    """A checkpoint must load without running anything."""
    buffer = io.BytesIO()
    torch.save(task.encoding, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == task.encoding


def test_metrics_are_new_at_every_call(task: Task) -> None:
    first, second = task.metrics(), task.metrics()
    assert first.keys() == second.keys()
    assert all(first[name] is not second[name] for name in first)


FINGERPRINT = """
import hashlib, sys
from pathlib import Path
from support.small_tasks import small_task
batch = small_task("copy_memory", Path(sys.argv[1])).batch("train", 7)
print(hashlib.sha256(batch.inputs.numpy().tobytes()).hexdigest())
"""


def test_a_batch_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Python salts hash() differently in every process, so seeds must not be derived from it."""
    batch = small_task("copy_memory", tmp_path).batch("train", 7)
    command = [sys.executable, "-c", FINGERPRINT, str(tmp_path)]
    search = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "12345"}
    found = subprocess.run(command, env=search, capture_output=True, text=True, check=True).stdout
    assert found.strip() == hashlib.sha256(batch.inputs.numpy().tobytes()).hexdigest()
