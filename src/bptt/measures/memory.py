"""Memory of the tensors that autograd saves for the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class SavedTensors:
    """Bytes of the storages that autograd saves for backward: current and peak. A shared storage counts once."""

    now: int = 0
    peak: int = 0
    _holders: dict[int, int] = field(default_factory=dict)


class _Held:
    """A saved tensor, whose storage is no longer counted once autograd frees it."""

    def __init__(self, tensor: Tensor, count: SavedTensors):
        self.tensor, self.count = tensor, count
        self.storage = tensor.untyped_storage()
        key = self.storage.data_ptr()
        count._holders[key] = count._holders.get(key, 0) + 1
        if count._holders[key] == 1:
            count.now += self.storage.nbytes()
            count.peak = max(count.peak, count.now)

    def __del__(self) -> None:
        key = self.storage.data_ptr()
        self.count._holders[key] -= 1
        if self.count._holders[key] == 0:
            del self.count._holders[key]
            self.count.now -= self.storage.nbytes()


@contextmanager
def saved_tensor_bytes() -> Iterator[SavedTensors]:
    """Count what autograd saves for backward inside the context."""
    count = SavedTensors()

    def pack(tensor: Tensor) -> Any:
        return _Held(tensor, count)

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        yield count
