"""From a task to the loaders of a Lightning trainer."""

from collections.abc import Iterator

from lightning import LightningDataModule

from bptt.tasks.base import Batch, Split, Task


class Stream:
    """The batches of one split, in order, cut down to the sequences of one process.

    Training goes on with new indices from epoch to epoch; other splits begin again.
    """

    def __init__(self, task: Task, split: Split, *, rank: int = 0, num_processes: int = 1):
        if task.batch_size % num_processes:
            raise ValueError(
                f"task.batch_size must be divisible by the number of processes, got {task.batch_size} sequences for "
                f"{num_processes} processes"
            )
        self.task = task
        self.split = split
        share = task.batch_size // num_processes
        self.columns = slice(rank * share, (rank + 1) * share)
        self.epoch = 0

    def __len__(self) -> int:
        return self.task.num_batches(self.split)

    def __iter__(self) -> Iterator[Batch]:
        first = self.epoch * len(self)
        self.epoch += self.split == "train"
        for index in range(first, first + len(self)):
            yield self.task.batch(self.split, index).columns(self.columns)


class TaskData(LightningDataModule):
    """The three streams of a task, divided among the trainer's processes."""

    def __init__(self, task: Task):
        super().__init__()
        self.task = task

    def train_dataloader(self) -> Stream:
        return self._stream("train")

    def val_dataloader(self) -> Stream:
        return self._stream("validation")

    def test_dataloader(self) -> Stream:
        return self._stream("test")

    def _stream(self, split: Split) -> Stream:
        trainer = self.trainer
        if trainer is None:
            return Stream(self.task, split)
        return Stream(self.task, split, rank=trainer.global_rank, num_processes=trainer.world_size)
