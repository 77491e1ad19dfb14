"""Tasks whose sequences are drawn from a seed."""

import hashlib
from abc import abstractmethod

import torch

from bptt.contracts import at_least
from bptt.tasks.base import Batch, Split, Task


def generator(seed: int, *place: object) -> torch.Generator:
    """Random numbers of their own for every seed and place, such as (split, index); the same in every process."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *place))).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


class SeededTask(Task):
    """Every batch is a function of (seed, split, index): the same on every run, new at every index.

    A task of this kind says itself how a batch follows, so also how a stream goes on from batch to batch.

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

    def num_batches(self, split: Split) -> int:
        return self._num_batches[split]


class SyntheticTask(SeededTask):
    """Independent sequences: a concrete task states `draw`, `errors`, `metrics` and its input and output sizes."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Batch:
        """One batch of fresh sequences from the generator's random numbers."""

    def batch(self, split: Split, index: int) -> Batch:
        return self.draw(generator(self.seed, split, index))
