"""Batches of sequences of about the same length."""

import torch
from torch import Tensor

JITTER = 0.1  # of a length, by which the order is disturbed so that batches differ from epoch to epoch


def bucketed(lengths: Tensor, batch_size: int, generator: torch.Generator | None) -> Tensor:
    """Indices of sequences (number of batches, batch_size), those of a batch of about the same length.

    With a generator for training: in random order, neighbours drawn again at every call, and the sequences that do not
    fill a batch, random ones, are left out. Without one: every sequence by length, those that fill up the last batch
    are −1.
    """
    number = len(lengths)
    if generator is None:
        order = lengths.argsort(stable=True)
        missing = -number % batch_size
        return torch.cat([order, order.new_full((missing,), -1)]).view(-1, batch_size)
    chosen = torch.randperm(number, generator=generator)[: number // batch_size * batch_size]
    noise = torch.rand(len(chosen), generator=generator) - 0.5
    batches = chosen[(lengths[chosen] * (1 + JITTER * noise)).argsort(stable=True)].view(-1, batch_size)
    return batches[torch.randperm(len(batches), generator=generator)]
