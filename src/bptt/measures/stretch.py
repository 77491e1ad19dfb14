"""What part of a long batch to measure on."""

import torch

from bptt.model import SequenceModel
from bptt.shapes import Inputs, State
from bptt.tasks.base import Batch

AT_ONCE = 1000  # timesteps passed over: kernels keep a kilobyte for each until they are done


def passed_over(model: SequenceModel, inputs: Inputs, state: State) -> State:
    """The state after timesteps, however many, that nobody asks more of; without a graph."""
    with torch.no_grad():
        for part in inputs.split(AT_ONCE):
            state = model.advance(part, state)
    return state


def up_to_last_loss(model: SequenceModel, batch: Batch, state: State, num_timesteps: int) -> tuple[Batch, State]:
    """At most so many timesteps of a batch, the ones up to its last loss, and the state they begin from."""
    stop = max((t for t, weight in enumerate(batch.weights(), start=1) if weight), default=batch.num_timesteps)
    start = max(0, stop - num_timesteps)
    if start:
        state = passed_over(model.without_dropout(), batch.inputs[:start], state)
    return batch.between(start, stop), state
