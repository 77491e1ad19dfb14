"""Batches of a task for one process."""

import pytest
import torch
from support.fixed_batches import FixedBatches, random_batch
from support.training import make_module, make_trainer

from bptt.lightning.counters import StreamPosition
from bptt.lightning.data import Stream, TaskData
from bptt.tasks import Split
from bptt.tasks.adding import Adding


def adding() -> Adding:
    return Adding(length=5, batch_size=4, seed=1, train_batches=2, validation_batches=3, test_batches=1)


@pytest.mark.parametrize(("split", "length"), [("train", 2), ("validation", 3), ("test", 1)])
def test_length_is_the_number_of_batches(split: Split, length: int) -> None:
    assert len(Stream(adding(), split)) == length
    assert len(list(Stream(adding(), split))) == length


def test_training_draws_new_batches_in_every_epoch_and_validation_the_same() -> None:
    task = adding()
    place = StreamPosition()
    training, validation = (
        Stream(task, "train", stream_position=place),
        Stream(task, "validation", stream_position=place),
    )
    seen = [batch.inputs for batch in training]
    place.epoch = 1
    seen += [batch.inputs for batch in training]
    assert all(torch.equal(seen[index], task.batch("train", index).inputs) for index in range(4))
    assert not torch.equal(seen[0], seen[2])
    first, second = ([batch.inputs for batch in validation] for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_stream_starts_at_the_position_of_training() -> None:
    """Validation begins again all the same."""
    task, place = adding(), StreamPosition(epoch=3, batch=1)
    (batch,) = Stream(task, "train", stream_position=place)
    assert torch.equal(batch.inputs, task.batch("train", 7).inputs)
    assert len(list(Stream(task, "validation", stream_position=place))) == 3


def test_processes_share_the_sequences_out() -> None:
    """Every sequence in exactly one process, the same number in each."""
    batch = random_batch(3, 4, mask=torch.rand(3, 4) < 0.5, reset=torch.tensor([True, False, True, False]))
    parts = [next(iter(Stream(FixedBatches([batch]), "train", rank=rank, num_processes=2))) for rank in (0, 1)]
    for name, axis in (("inputs", 1), ("targets", 1), ("mask", 1), ("reset", 0)):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts], axis), getattr(batch, name))
    assert [part.batch_size for part in parts] == [2, 2]


def test_sequences_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(ValueError, match=r"task\.batch_size must be divisible by .*, got 4 sequences for 3"):
        Stream(adding(), "train", num_processes=3)


def test_data_without_a_trainer_are_all_sequences() -> None:
    data = TaskData(make_module(adding()))
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    assert [loader.split for loader in loaders] == ["train", "validation", "test"]
    assert next(iter(loaders[0])).batch_size == 4


def test_data_of_a_trainer_are_its_process_own() -> None:
    data = TaskData(make_module(adding()))
    data.trainer = make_trainer()
    assert next(iter(data.val_dataloader())).batch_size == 4
