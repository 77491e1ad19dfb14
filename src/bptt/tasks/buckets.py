"""Batches of sequences of about the same length."""

import torch
from torch import Tensor

JITTER = 0.1  # random change of each length before sorting, relative; batches then differ between epochs


def without_a_batch(number: int, batch_size: int) -> str:
    """One line about the training sequences that an epoch leaves out, for `Task.left_out`."""
    rest = number % batch_size
    return f"{rest} of {number:,} training sequences, drawn at random, as they fill no batch" if rest else ""


def bucketed(lengths: Tensor, batch_size: int, generator: torch.Generator | None) -> Tensor:
    """Indices of sequences (number of batches, batch_size); the sequences of a batch have about the same length.

    With a generator, for training: batches in random order, drawn again at every call; random sequences that would not
    fill a batch are left out. Without one: all sequences by length; the last batch is filled up with −1.
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
