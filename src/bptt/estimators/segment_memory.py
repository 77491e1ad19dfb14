"""Memory of a pass with a graph, and the segments that fit a budget."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bptt.buffers import kept_buffers
from bptt.model import SequenceModel
from bptt.shapes import State, detach, leaves
from bptt.tasks.base import Batch, Loss

MEGABYTE = 2**20


class SavedBytes(NamedTuple):
    """Bytes that a pass of n timesteps saves for backward: constant + n · per_timestep."""

    constant: float
    per_timestep: float


def longest_segment(num_timesteps: int, saved: SavedBytes, bytes_per_border: int, budget: float) -> int:
    """The largest s ≤ T with s · m + (T/s) · c ≤ budget: one segment with a graph, and the stored states.

    m = `saved.per_timestep`, c = `bytes_per_border` of a stored state; `saved.constant` is taken off the budget. T if
    one segment fits, which stores no state. If no s fits, the s of least memory, √(T c / m).
    """
    bytes_per_timestep, budget = saved.per_timestep, max(0.0, budget - saved.constant)
    if num_timesteps * bytes_per_timestep <= budget:
        return num_timesteps
    room = budget**2 - 4 * bytes_per_timestep * num_timesteps * bytes_per_border
    if room < 0:
        size = math.ceil(math.sqrt(num_timesteps * bytes_per_border / bytes_per_timestep))
    else:
        size = math.floor((budget + math.sqrt(room)) / (2 * bytes_per_timestep))
    return min(max(size, 1), num_timesteps)


def saved_bytes(model: SequenceModel, loss: Loss, batch: Batch, state: State) -> SavedBytes:
    """Memory that autograd saves for a pass and its loss, measured on one and on nine timesteps.

    The constant part is mostly weights. Random generators and the model's buffers stay unchanged.
    """
    stop = min(9, batch.num_timesteps)
    assert stop > 1
    device = batch.inputs.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), kept_buffers(model):
        short, long = (_saved_bytes(model, loss, batch.between(0, size), detach(state)) for size in (1, stop))
    per_timestep = max(0.0, (long - short) / (stop - 1))
    return SavedBytes(max(0.0, short - per_timestep), per_timestep)


def bytes_of(state: State) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(state))


def _saved_bytes(model: SequenceModel, loss: Loss, batch: Batch, state: State) -> int:
    """Bytes of the distinct storages that one pass saves for backward."""
    storages: dict[int, int] = {}
    kept = []  # so that no storage is freed and its address used again

    def pack(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        kept.append(storage)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # not a call of the model, which would run the hooks of measures
        predictions, _, _ = model.forward(batch.inputs, state, batch.resets)
        loss(predictions, batch)
    return sum(storages.values())
