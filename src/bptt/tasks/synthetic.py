"""Tasks whose sequences are drawn from a seed."""

import hashlib
from abc import abstractmethod

import torch

from bptt.contracts import at_least
from bptt.tasks.base import Batch, Split, Task


def generator(seed: int, *key: object) -> torch.Generator:
    """Random generator for a seed and a key such as (split, index); the same in every process."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *key))).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


class SeededTask(Task):
    """Base class of tasks whose batches are a function of (seed, split, index), different at every index.

    A subclass defines `batch`, and so decides if streams continue from batch to batch.

    train_batches: batches per epoch; the next epoch draws new ones. validation_batches, test_batches: fixed sets.
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

    def num_batches(self, split: Split) -> int:
        return self._num_batches[split]


class SyntheticTask(SeededTask):
    """Base class for independent sequences: a subclass defines `draw`, `errors`, `metrics` and both sizes."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Batch:
        """Draw one batch of new sequences."""

    def batch(self, split: Split, index: int) -> Batch:
        return self.draw(generator(self.seed, split, index))
