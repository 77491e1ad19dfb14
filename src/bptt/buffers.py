"""Save and restore the buffers of a module, such as running means, which a pass in training changes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# By the part of a module that has them and by name: the tensor itself, which DDP or a carried state may hold, and a
# copy of its values; None for a buffer without a value yet.
Buffers = dict[tuple[nn.Module, str], tuple[Tensor, Tensor] | None]


def buffers(module: nn.Module) -> Buffers:
    """The buffers of a module as they are now."""
    present = ((part, name, value) for part in module.modules() for name, value in part._buffers.items())
    return {(part, name): None if value is None else (value, value.detach().clone()) for part, name, value in present}


@torch.no_grad()
def restore_buffers(module: nn.Module, before: Buffers) -> None:
    """Give a module the buffers that `buffers` returned. A tensor is written only if its values have changed."""
    for part, name in buffers(module).keys() - before.keys():
        del part._buffers[name]
    for (part, name), kept in before.items():
        if kept is None:
            part._buffers[name] = None
            continue
        tensor, values = kept
        if not same(tensor, values):
            if tensor.is_inference():
                tensor = values.clone()
            else:
                tensor.copy_(values)
        part._buffers[name] = tensor


def differ(one: Buffers, other: Buffers) -> bool:
    """True if buffers have other values, or if there are others."""
    pairs = [(one[key], other.get(key)) for key in one]
    alike = all(first is second is None or (first and second and same(first[1], second[1])) for first, second in pairs)
    return one.keys() != other.keys() or not alike


def same(one: Tensor, other: Tensor) -> bool:
    """True for equal values; NaN equals NaN."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Put a module's buffers back after the block: passes that are no part of training leave no trace."""
    before = buffers(module)
    try:
        yield
    finally:
        restore_buffers(module, before)
