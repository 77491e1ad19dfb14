"""Tasks whose sequences are drawn, never stored."""

import hashlib
from abc import abstractmethod

import torch

from bptt.contracts import at_least
from bptt.tasks.base import Batch, Split, Task


class SyntheticTask(Task):
    """Every batch is a function of (seed, split, index): the same on every run, new at every index.

    A concrete task states `draw`, `errors`, `metrics` and the sizes of its inputs and outputs.

    train_batches: batches in an epoch; the next epoch draws new ones. validation_batches, test_batches: fixed sets.
    """

    def __init__(
        self,
        *,
        length: int,
        batch_size: int,
        seed: int,
        train_batches: int,
        validation_batches: int,
        test_batches: int,
    ):
        super().__init__(length=length, batch_size=batch_size)
        at_least(1, train_batches=train_batches, validation_batches=validation_batches, test_batches=test_batches)
        at_least(0, seed=seed)
        self._num_batches = {"train": train_batches, "validation": validation_batches, "test": test_batches}
        self.seed = seed

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Batch:
        """One batch of fresh sequences from the generator's random numbers."""

    def num_batches(self, split: Split) -> int:
        return self._num_batches[split]

    def batch(self, split: Split, index: int) -> Batch:
        digest = hashlib.blake2b(f"{self.seed}/{split}/{index}".encode(), digest_size=7).digest()
        return self.draw(torch.Generator().manual_seed(int.from_bytes(digest, "big")))
