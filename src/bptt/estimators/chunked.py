"""Truncated backpropagation through time over disjoint chunks."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from bptt.contracts import at_least, one_of
from bptt.estimators.base import Backward, Estimator, Update, zero_loss
from bptt.model import SequenceModel
from bptt.shapes import State, detach
from bptt.tasks.base import Batch, Loss


class Chunked(Estimator):
    """Chunks of `chunk_size` timesteps: the state is carried from chunk to chunk, the gradient is cut between them.

    The last chunk may be shorter. A chunk without a loss only advances the state, without a graph.

    update: `chunk` yields the gradient of a chunk's mean loss after every chunk. `sequence` accumulates the chunks'
        gradients and yields the gradient of the batch's mean loss once a batch.
    """

    def __init__(self, chunk_size: int, *, update: Literal["chunk", "sequence"] = "chunk"):
        at_least(1, chunk_size=chunk_size, remedy="use estimator=full for no truncation")
        one_of(("chunk", "sequence"), update=update)
        self.chunk_size = chunk_size
        self.update = update

    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        weights, total = batch.weights(), zero_loss(batch)
        whole = sum(weights)
        passes = []
        for start, chunk in batch.split(self.chunk_size):
            stop = start + chunk.num_timesteps
            weight = sum(weights[start:stop])
            if weight:
                predictions, state, _ = model(chunk.inputs, state)
                error = loss(predictions, chunk) * (1 if self.update == "chunk" else weight / whole)
                backward(error)
            else:
                with torch.no_grad():
                    state, error = model.advance(chunk.inputs, state), zero_loss(batch)
            state = detach(state)
            passes += [(start, stop)] if weight else []
            if self.update == "chunk":
                yield Update(error.detach(), weight, start, stop, state, tuple(passes))
                passes = []
            total = total + error.detach()
        if self.update == "sequence":
            yield Update(total, whole, 0, batch.num_timesteps, state, tuple(passes))
