"""The part of a long batch to measure on."""

from typing import NamedTuple

from bptt.model import SequenceModel
from bptt.shapes import State
from bptt.tasks.base import Batch


class Segment(NamedTuple):
    """Consecutive timesteps of a batch, the state before them, and the first timestep's place in the batch."""

    batch: Batch
    state: State
    start: int


def last_timesteps_with_loss(model: SequenceModel, batch: Batch, state: State, num_timesteps: int) -> Segment:
    """At most `num_timesteps` timesteps of a batch: those up to its last loss, or its end if it has none."""
    model.require_one_direction("a measure of truncation")
    stop = last_loss_end(batch) or batch.num_timesteps
    start = max(0, stop - num_timesteps)
    if start:
        before = batch.between(0, start)
        state = model.without_dropout().advance_in_blocks(before.inputs, state, before.resets)
    return Segment(batch.between(start, stop), state, start)


def last_loss_end(batch: Batch) -> int:
    """Number of timesteps up to and including the last one with a loss; 0 if there is none."""
    return max((t for t, weight in enumerate(batch.weights(), start=1) if weight), default=0)
