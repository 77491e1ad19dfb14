"""Exact backpropagation through time with checkpointing."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bptt.contracts import at_least
from bptt.estimators.base import Backward, Estimator, Update, scaled_backward, zero_loss
from bptt.model import SequenceModel
from bptt.random_state import random_state, restore_random_state
from bptt.shapes import State, detach, leaves, map_state
from bptt.tasks.base import Batch, Loss


class Full(Estimator):
    """The exact gradient of the mean loss over the whole batch, one update a batch.

    A first pass without a graph stores the state at the borders of segments of `segment_size` timesteps. Then each
    segment, from the last to the first, is computed again with a graph and receives the gradient λ at its end. Memory
    is O((T/s + s) · H) for segments of s timesteps instead of O(T · H), at the price of at most one more forward pass
    (Chen et al. 2016; Gruslys et al. 2016). The second computation repeats the random draws of dropout.

    segment_size: by default about √T, which needs the least memory.
    """

    def __init__(self, segment_size: int | None = None):
        if segment_size is not None:
            at_least(1, segment_size=segment_size, remedy="use null for about √T")
        self.segment_size = segment_size

    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        size = self.segment_size or math.ceil(math.sqrt(batch.num_timesteps))
        segments = list(batch.split(size))
        counts = batch.weights()
        weights = [sum(counts[start : start + size]) for start, _ in segments]
        whole, total = sum(weights), zero_loss(batch)
        until = max((index + 1 for index, weight in enumerate(weights) if weight), default=0)

        starts, draws, device = [state], [], batch.inputs.device
        with torch.no_grad():
            for _, segment in segments[: max(0, until - 1)]:
                draws.append(random_state(device))
                starts.append(model.advance(segment.inputs, starts[-1]))

        arriving: list[Tensor] = []  # λ at the end of the current segment, one tensor for each tensor of the state
        for index in reversed(range(until)):
            _, segment = segments[index]
            start = starts.pop()
            if index > 0:
                start = map_state(lambda leaf: leaf.detach().requires_grad_(), start)
            if index < until - 1:
                restore_random_state(draws[index], device)
            predictions, stop, _ = model(segment.inputs, start)
            if index == until - 1:
                state, after = detach(stop), random_state(device)
            error = loss(predictions, segment) * (weights[index] / whole) if weights[index] else zero_loss(batch)
            total = total + error.detach()
            handed_on = sum(
                (leaf.to(gradient.dtype) * gradient).sum() for leaf, gradient in zip(leaves(stop), arriving)
            )
            scale = scaled_backward(error + handed_on, backward)
            if index > 0:
                arriving = [handed_back(leaf, scale) for leaf in leaves(start)]

        if until:
            restore_random_state(after, device)
        with torch.no_grad():
            for _, segment in segments[until:]:
                state = model.advance(segment.inputs, state)
        passes = tuple((start, start + segment.num_timesteps) for start, segment in reversed(segments[:until]))
        yield Update(total, whole, 0, batch.num_timesteps, detach(state), passes)


def handed_back(leaf: Tensor, scale: Tensor) -> Tensor:
    """The gradient of a leaf divided by the loss scale, in at least float32, because it underflows in float16."""
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return gradient.to(torch.promote_types(leaf.dtype, torch.float32)) / scale
