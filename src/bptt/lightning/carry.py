"""The recurrent state between batches."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from bptt.layers.base import like
from bptt.model import SequenceModel
from bptt.shapes import State, leaves, map_state
from bptt.tasks.base import Batch


class Carry:
    """Keeps the detached state at a batch's end for the sequences that go on in the next batch.

    Not a buffer of the module: each process has its own sequences, and so its own state.
    """

    def __init__(self) -> None:
        self.state: State | None = None

    def state_for(self, model: SequenceModel, batch: Batch) -> State:
        """The state at a batch's start: the initial one where a sequence begins, else the one kept."""
        if self.state is None or batch.reset is None:
            return model.initial_state(batch.batch_size)
        return self.with_initial_where(model, batch.reset)

    def with_initial_where(self, model: SequenceModel, sequences: Bool[Tensor, " B"]) -> State:
        """The state kept, with the initial one for the chosen sequences."""
        assert self.state is not None
        joined: State = map_state(
            lambda new, kept: SelectRows.apply(new, kept, sequences.view(-1, *[1] * (new.dim() - 1))),
            model.initial_state(len(sequences)),
            self.state,
        )
        return joined

    def keep(self, state: State) -> None:
        self.state = state

    def tensors(self) -> list[Tensor] | None:
        """What is kept, in plain containers for a checkpoint."""
        return None if self.state is None else leaves(self.state)

    def restore(self, tensors: Sequence[Tensor] | None, model: SequenceModel) -> None:
        """Keep again what `tensors` gave."""
        if tensors is None:
            self.state = None
            return
        example = model.initial_state(len(tensors[0]))
        self.state = map_state(lambda kept, own: kept.to(own.device), like(example, tensors), example)


class SelectRows(torch.autograd.Function):
    """new where it is chosen, kept elsewhere.

    torch.where would free the choice after one backward pass; but windows that overlap go back to the batch's start,
    and to a learnt initial state there, more than once.
    """

    @staticmethod
    def forward(ctx: Any, new: Tensor, kept: Tensor, chosen: Tensor) -> Tensor:
        ctx.chosen = chosen
        return torch.where(chosen, new, kept)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return torch.where(ctx.chosen, gradient, 0), torch.where(ctx.chosen, 0, gradient), None
