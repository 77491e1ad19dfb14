"""Save and restore the buffers of a module, such as running means, which a pass in training changes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Buffers = dict[tuple[nn.Module, str], Tensor | None]  # by the part of a module that has them, and by name


def buffers(module: nn.Module) -> Buffers:
    """Copies of a module's buffers; None for those without a value yet."""
    return {key: None if value is None else value.detach().clone() for key, value in _present(module).items()}


@torch.no_grad()
def restore_buffers(module: nn.Module, before: Buffers) -> None:
    """Give a module the buffers that `buffers` returned, in place where their shapes are still those."""
    for (part, name), value in _present(module).items():
        kept = before.get((part, name))
        if (part, name) not in before:
            del part._buffers[name]
        elif value is None or kept is None or value.shape != kept.shape or not is_writable(value):
            part._buffers[name] = None if kept is None else kept.clone()
        else:
            value.copy_(kept)  # DDP holds these tensors


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Put a module's buffers back after the block: passes that are no part of training leave no trace."""
    before = buffers(module)
    try:
        yield
    finally:
        restore_buffers(module, before)


def is_writable(value: Tensor) -> bool:
    """False for tensors made in inference mode, and for expanded ones."""
    return not value.is_inference() and (value.is_contiguous() or all(value.stride()))


def _present(module: nn.Module) -> Buffers:
    return {(part, name): value for part in module.modules() for name, value in part._buffers.items()}
