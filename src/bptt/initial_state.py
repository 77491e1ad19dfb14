"""The state before the first timestep of a batch."""

from bptt.layers.base import like
from bptt.layers.reset import select_rows
from bptt.model import SequenceModel
from bptt.shapes import State, leaves
from bptt.tasks.base import Batch


def initial_state(model: SequenceModel, batch: Batch) -> State:
    """The state of sequences that begin with a batch: the batch's own (`Batch.initial`), else the model's.

    ValueError if the batch's own does not have the tensors of the model's state.
    """
    example = model.initial_state(batch.batch_size)
    if batch.initial is None:
        return example
    given, wanted = leaves(batch.initial), leaves(example)
    shapes = [[list(leaf.shape) for leaf in side] for side in (given, wanted)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"Batch.initial must have tensors like model.initial_state(B), {shapes[1]}, got {shapes[0]}")
    state: State = like(example, (leaf.detach().to(own) for leaf, own in zip(given, wanted)))
    return state


def state_at_start(model: SequenceModel, batch: Batch, carried: State | None) -> State:
    """The carried state for sequences that continue, the initial state for those that begin with this batch."""
    initial = initial_state(model, batch)
    if model.bidirectional:
        if batch.continues:
            model.require_one_direction("sequences that continue the previous batch")
        return initial
    if carried is None or batch.begins is None:
        return initial
    selected: State = select_rows(batch.begins, initial, carried)
    return selected
