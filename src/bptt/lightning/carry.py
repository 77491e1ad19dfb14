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
    """The detached state at the end of a batch, for sequences that continue in the next batch.

    It is no buffer of the module, because each process has its own sequences and DDP would broadcast buffers.
    """

    def __init__(self) -> None:
        self.state: State | None = None

    def state_for(self, model: SequenceModel, batch: Batch) -> State:
        """The state at a batch's start: the initial state for sequences that begin here, else the carried one."""
        if self.state is None or batch.reset is None:
            return model.initial_state(batch.batch_size)
        return self.with_initial_where(model, batch.reset)

    def with_initial_where(self, model: SequenceModel, sequences: Bool[Tensor, " B"]) -> State:
        """The carried state, replaced by the initial state for the given sequences."""
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
        """The carried tensors in plain containers, for a checkpoint."""
        return None if self.state is None else leaves(self.state)

    def restore(self, tensors: Sequence[Tensor] | None, model: SequenceModel) -> None:
        """Restore what `tensors` returned."""
        if tensors is None:
            self.state = None
            return
        example = model.initial_state(len(tensors[0]))
        self.state = map_state(lambda kept, own: kept.to(own.device), like(example, tensors), example)


class SelectRows(torch.autograd.Function):
    """`new` in the chosen rows, `kept` in the others.

    Like torch.where, but it can be backpropagated through repeatedly: overlapping windows (`Sliding`) backpropagate to
    a learnt initial state several times.
    """

    @staticmethod
    def forward(ctx: Any, new: Tensor, kept: Tensor, chosen: Tensor) -> Tensor:
        ctx.chosen = chosen
        return torch.where(chosen, new, kept)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return torch.where(ctx.chosen, gradient, 0), torch.where(ctx.chosen, 0, gradient), None
