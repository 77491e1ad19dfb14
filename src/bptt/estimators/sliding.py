"""Truncated backpropagation through time over a sliding window."""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise

import torch
from torch import Tensor

from bptt.contracts import at_least
from bptt.estimators.base import Backward, Estimator, Update, zero_loss
from bptt.model import SequenceModel
from bptt.shapes import State, detach
from bptt.tasks.base import Batch, Loss


class Sliding(Estimator):
    """TBPTT(k1, k2), also called BPTT(h; h′) (Williams & Peng 1990).

    Every `stride` = k1 timesteps, the mean loss of the newest k1 timesteps is backpropagated through the last
    `window` = k2 ≥ k1 timesteps.

    The window is computed again for every update, from the stored state at its start, with the current parameters. A
    window never begins before the batch. k1 = k2 equals `Chunked`; k1 = T equals `Full`. A last stride that is shorter
    does not move its window's start.

    A widely copied recipe backpropagates k1-step losses through k2 one-step graphs of earlier updates. Those graphs
    belong to former parameters, so it computes something else.
    """

    def __init__(self, stride: int, window: int):
        at_least(1, stride=stride)
        at_least(stride, window=window, remedy="the window holds the newest `stride` timesteps and what is before them")
        self.stride = stride
        self.window = window

    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        weights, length = batch.weights(), batch.num_timesteps
        origin = 0  # first timestep of the window
        for start in range(0, length, self.stride):
            stop = min(start + self.stride, length)
            weight = sum(weights[start:stop])
            # The next window begins inside this one: split the pass there to store its first state.
            following = min(stop, max(0, start + 2 * self.stride - self.window))
            passes = tuple(pairwise(sorted({origin, following, start, stop})))
            picked, predictions = {origin: state}, []
            with nullcontext() if weight else torch.no_grad():
                for first, last in passes:
                    made, state, _ = model(batch.inputs[first:last], state)
                    picked[last] = detach(state)
                    predictions += [made] if first >= start else []
                error = loss(torch.cat(predictions), batch.between(start, stop)) if weight else zero_loss(batch)
            if weight:
                backward(error)
            yield Update(error.detach(), weight, start, stop, detach(state), passes if weight else ())
            origin, state = following, picked[following]
