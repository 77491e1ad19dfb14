"""Save and restore the buffers of a module, such as running means, which a pass in training changes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's buffers, by name."""
    return {name: buffer.detach().clone() for name, buffer in module.named_buffers()}


@torch.no_grad()
def restore_buffers(module: nn.Module, before: dict[str, Tensor]) -> None:
    """Give a module's buffers the values that `buffers` returned."""
    for name, buffer in module.named_buffers():
        buffer.copy_(before[name])


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Put a module's buffers back after the block: passes that are no part of training leave no trace."""
    before = buffers(module)
    try:
        yield
    finally:
        restore_buffers(module, before)
