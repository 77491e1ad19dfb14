"""Exact backpropagation through time with checkpointing."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bptt.buffers import Buffers, buffers, restore_buffers
from bptt.contracts import at_least, between
from bptt.estimators.base import Backward, Estimator, Update, scaled_backward, zero_loss
from bptt.estimators.segment_memory import MEGABYTE, SavedBytes, bytes_of, longest_segment, saved_bytes
from bptt.model import SequenceModel
from bptt.random_state import random_state, restore_random_state
from bptt.shapes import State, detach, leaves, map_state
from bptt.tasks.base import Batch, Loss


class Full(Estimator):
    """The exact gradient of the mean loss over the whole batch, one update a batch.

    If the whole graph fits the memory budget, this is one plain backward pass. Otherwise a first pass without a graph
    stores the state at the borders of segments of s timesteps. Then each segment, from the last to the first, is
    computed again with a graph and receives the gradient λ at its end. Memory is O((T/s + s) · H) instead of O(T · H),
    at the price of at most one more forward pass (Chen et al. 2016; Gruslys et al. 2016). The second computation
    repeats the random draws of dropout, and begins with the buffers that the model had there.

    segment_size: s. By default the largest one within `memory_mb`.
    memory_mb: budget, in megabytes of 2²⁰ bytes, for the tensors that autograd saves and the stored states. The first
        batch of each shape is probed for what a timestep takes. Weights, gradients and the batch itself come on top.
        A budget below the least possible memory gives the segments of least memory, about √T. A bidirectional model
        has one segment, whatever it takes.
    """

    def __init__(self, segment_size: int | None = None, *, memory_mb: float = 256):
        if segment_size is not None:
            at_least(1, segment_size=segment_size, remedy="use null for the largest within estimator.memory_mb")
        between(0, float("inf"), memory_mb=memory_mb, open_low=True)
        self.segment_size = segment_size
        self.memory_mb = memory_mb
        self._saved_bytes: dict[tuple[Any, ...], SavedBytes] = {}

    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        size = self._segment_size(model, loss, batch, state)
        segments = list(batch.split(size))
        counts = batch.weights()
        weights = [sum(counts[start : start + size]) for start, _ in segments]
        whole, total = sum(weights), zero_loss(batch)
        until = max((index + 1 for index, weight in enumerate(weights) if weight), default=0)

        starts, before, device = [state], [], batch.inputs.device

        def restore(draws: dict[str, Tensor], values: Buffers) -> None:
            restore_random_state(draws, device)
            restore_buffers(model, values)

        with torch.no_grad():
            for _, segment in segments[: max(0, until - 1)]:
                before.append((random_state(device), buffers(model)))
                starts.append(model.advance(segment.inputs, starts[-1], segment.resets))

        arriving: list[Tensor] = []  # λ at the end of the current segment, one tensor for each tensor of the state
        for index in reversed(range(until)):
            _, segment = segments[index]
            start = starts.pop()
            if index > 0:
                start = map_state(lambda leaf: leaf.detach().requires_grad_(), start)
            if index < until - 1:
                restore(*before[index])
            predictions, stop, _ = model(segment.inputs, start, segment.resets)
            if index == until - 1:
                state, after = detach(stop), (random_state(device), buffers(model)) if until > 1 else None
            error = loss(predictions, segment) if weights[index] else zero_loss(batch)
            if weights[index] not in (0, whole):
                error = error * (weights[index] / whole)
            total = total + error.detach()
            for leaf, gradient in zip(leaves(stop), arriving):
                error = error + (leaf.to(gradient.dtype) * gradient).sum()
            if index == 0:
                if error.requires_grad:  # not with frozen layers, where the first segment has no loss
                    backward(error)
            else:
                scale = scaled_backward(error, backward)
                arriving = [handed_back(leaf, scale) for leaf in leaves(start)]

        if until > 1:
            assert after is not None
            restore(*after)
        with torch.no_grad():
            for _, segment in segments[until:]:
                state = model.advance(segment.inputs, state, segment.resets)
        passes = tuple((start, start + segment.num_timesteps) for start, segment in reversed(segments[:until]))
        yield Update(total, whole, 0, batch.num_timesteps, detach(state), passes)

    def _segment_size(self, model: SequenceModel, loss: Loss, batch: Batch, state: State) -> int:
        if self.segment_size is not None:
            model.require_one_direction("estimator.segment_size")
            return self.segment_size
        if model.bidirectional or batch.num_timesteps == 1:
            return batch.num_timesteps
        inputs = batch.inputs
        precision = (inputs.dtype, torch.is_autocast_enabled(inputs.device.type), next(model.parameters()).dtype)
        key = (id(model), model.training, inputs.shape[1:], inputs.device, precision)
        if key not in self._saved_bytes:
            self._saved_bytes[key] = saved_bytes(model, loss, batch, state)
        budget = self.memory_mb * MEGABYTE
        return longest_segment(batch.num_timesteps, self._saved_bytes[key], bytes_of(state), budget)


def handed_back(leaf: Tensor, scale: Tensor) -> Tensor:
    """The gradient of a leaf divided by the loss scale, in at least float32, because it underflows in float16."""
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return gradient.to(torch.promote_types(leaf.dtype, torch.float32)) / scale
