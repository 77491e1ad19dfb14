"""What part of a long batch to measure on."""

from bptt.model import SequenceModel
from bptt.shapes import State
from bptt.tasks.base import Batch


def last_timesteps_with_loss(
    model: SequenceModel, batch: Batch, state: State, num_timesteps: int
) -> tuple[Batch, State]:
    """At most so many timesteps of a batch, the ones up to its last loss, and the state they begin from."""
    stop = max((t for t, weight in enumerate(batch.weights(), start=1) if weight), default=batch.num_timesteps)
    start = max(0, stop - num_timesteps)
    if start:
        state = model.without_dropout().advance_in_blocks(batch.inputs[:start], state)
    return batch.between(start, stop), state
