"""Data loaders of a task for a Lightning trainer."""

from collections.abc import Iterator

from lightning import LightningDataModule

from bptt.lightning.counters import StreamPosition
from bptt.lightning.module import BPTTModule
from bptt.tasks.base import Batch, Split, Task


class Stream:
    """The batches of one split in order, with the sequences of one process only.

    The training split starts at `stream_position` and has new batch indices in every epoch. Other splits always start
    at batch 0.
    """

    def __init__(
        self,
        task: Task,
        split: Split,
        *,
        stream_position: StreamPosition | None = None,
        rank: int = 0,
        num_processes: int = 1,
    ):
        if task.batch_size % num_processes:
            raise ValueError(
                f"task.batch_size must be divisible by the number of processes, got {task.batch_size} sequences for "
                f"{num_processes} processes"
            )
        self.task = task
        self.split = split
        share = task.batch_size // num_processes
        self.columns = slice(rank * share, (rank + 1) * share)
        self.stream_position = stream_position or StreamPosition()

    def __len__(self) -> int:
        return self.task.num_batches(self.split)

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = (self.stream_position.epoch, self.stream_position.batch) if self.split == "train" else (0, 0)
        for index in range(first, len(self)):
            yield self.task.batch(self.split, epoch * len(self) + index).columns(self.columns)

    # Lightning skips no batches on resume if the loader has these methods. The module keeps the position.
    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        pass


class TaskData(LightningDataModule):
    """The three splits of a module's task, divided among the trainer's processes.

    Training starts at the module's `stream_position`.
    """

    def __init__(self, module: BPTTModule):
        super().__init__()
        self.task = module.task
        self.stream_position = module.stream_position
        self.module = module

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Correct the count of batches by which Lightning's callbacks log: it adds 1 when it resumes a run."""
        if self.trainer is not None and self.trainer.training:
            self.module.batch_phase = "start"
            self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.module.counters.batches
        return batch

    def train_dataloader(self) -> Stream:
        return self._stream("train")

    def val_dataloader(self) -> Stream:
        return self._stream("validation")

    def test_dataloader(self) -> Stream:
        return self._stream("test")

    def _stream(self, split: Split) -> Stream:
        trainer = self.trainer
        if trainer is None:
            return Stream(self.task, split, stream_position=self.stream_position)
        return Stream(
            self.task,
            split,
            stream_position=self.stream_position,
            rank=trainer.global_rank,
            num_processes=trainer.world_size,
        )
