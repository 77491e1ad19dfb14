"""The recurrent state between batches."""

from collections.abc import Sequence

from jaxtyping import Bool
from torch import Tensor

from bptt.initial_state import state_at_start
from bptt.layers.base import like
from bptt.layers.reset import select_rows
from bptt.model import SequenceModel
from bptt.shapes import State, leaves, map_state
from bptt.tasks.base import Batch


class Carry:
    """The detached state at the end of a batch, for sequences that continue in the next batch.

    Not a module buffer: each process has its own sequences, and DDP would broadcast buffers.
    """

    def __init__(self) -> None:
        self.state: State | None = None

    def state_for(self, model: SequenceModel, batch: Batch) -> State:
        """The state at a batch's start: the initial state for sequences that begin here, else the carried one."""
        return state_at_start(model, batch, self.state)

    def with_initial_where(self, model: SequenceModel, sequences: Bool[Tensor, " B"]) -> State:
        """The carried state, replaced by the initial state for the given sequences."""
        assert self.state is not None
        selected: State = select_rows(sequences, model.initial_state(len(sequences)), self.state)
        return selected

    def keep(self, state: State) -> None:
        self.state = state

    def tensors(self) -> list[Tensor] | None:
        """The carried tensors in plain containers, for a checkpoint."""
        return None if self.state is None else leaves(self.state)

    def restore(self, tensors: Sequence[Tensor] | None, model: SequenceModel) -> None:
        """Restore what `tensors` returned."""
        if tensors is None:
            self.state = None
            return
        example = model.initial_state(len(tensors[0]))
        self.state = map_state(lambda saved, current: saved.to(current.device), like(example, tensors), example)
