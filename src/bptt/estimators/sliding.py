"""Truncated backpropagation through time over a sliding window."""

from collections.abc import Iterator

from torch import Tensor

from bptt.contracts import at_least
from bptt.estimators.base import Backward, Estimator, Update
from bptt.estimators.window import Window, check_burn_in, run_window
from bptt.model import SequenceModel
from bptt.shapes import State
from bptt.tasks.base import Batch, Loss


class Sliding(Estimator):
    """TBPTT(k1, k2), also called BPTT(h; h′) (Williams & Peng 1990).

    Every `stride` = k1 timesteps, the mean loss of the newest k1 timesteps is backpropagated through the last
    `window` = k2 ≥ k1 timesteps.

    The window is computed again for every update, from the stored state at its start, with the current parameters. A
    window never begins before the batch. k1 = k2 equals `Chunked` with `ragged=last`; k1 = T equals `Full`. A last
    stride that is shorter does not move its window's start.

    A widely copied recipe backpropagates k1-step losses through k2 one-step graphs of earlier updates. Those graphs
    belong to former parameters, so it computes something else.

    burn_in: timesteps N before each window that only advance the state with the current parameters, without a graph
        and without a loss, as in `Chunked`. The first N timesteps of a batch are the first window's burn-in: no
        gradient reaches them and their losses are not trained.
    """

    def __init__(self, stride: int, window: int, *, burn_in: int = 0):
        at_least(1, stride=stride)
        at_least(stride, window=window, remedy="the window holds the newest `stride` timesteps and what is before them")
        at_least(0, burn_in=burn_in)
        self.stride = stride
        self.window = window
        self.burn_in = burn_in

    def check(self, model: SequenceModel, batch_size: int, length: int) -> None:
        check_burn_in(self.burn_in, length)

    def updates(
        self, model: SequenceModel, loss: Loss, batch: Batch, state: State, backward: Backward = Tensor.backward
    ) -> Iterator[Update]:
        weights, length = batch.weights(), batch.num_timesteps
        burn_in = min(self.burn_in, length)
        begun = 0  # first timestep that no update covers yet
        for start in range(burn_in, length, self.stride) or [length]:
            stop = min(start + self.stride, length)
            weight = sum(weights[start:stop])
            origin, following = (
                max(burn_in, end - self.window) for end in (start + self.stride, start + 2 * self.stride)
            )
            window = Window(origin - burn_in, origin, start, stop, following - burn_in)
            ran = run_window(model, loss, batch, state, window, weight=weight, whole=None, backward=backward)
            yield Update(ran.loss, weight, begun, stop, ran.final, ran.passes)
            state, begun = ran.following, stop
