"""Resets: timesteps at which a sequence begins again within a batch."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool
from torch import Tensor

from bptt.shapes import Mask, State, map_state


class Reset(NamedTuple):
    """Timesteps t at which sequences begin again: `state` replaces their state before t.

    No state and no gradient crosses a reset.

    mask: (T, B), true if the sequence begins again at the timestep.
    times: the timesteps with a reset in any sequence, ascending.
    state: the state that sequences begin with, (B, ·); a learnt one collects gradient at every reset.
    """

    mask: Mask
    times: tuple[int, ...]
    state: Any

    @classmethod
    def at(cls, mask: Mask, state: State | None) -> Self:
        return cls(mask, tuple(mask.any(1).nonzero().flatten().tolist()), state)

    def begin(self, time: int, arrived: Any) -> Any:
        """The state before a timestep: `self.state` for the sequences that begin again there, else `arrived`."""
        return select_rows(self.mask[time], self.state, arrived)

    def begin_all_(self, arrived: Tensor, began: Tensor) -> Tensor:
        """Put `began` (B, ·) into one tensor of the state before every timestep, (T, B, ·), at all resets."""
        times, columns = self.mask.nonzero(as_tuple=True)
        arrived[times, columns] = began[columns]
        return arrived

    def spans(self) -> Iterator[tuple[int, int]]:
        """The timesteps (first, last + 1) between resets of any sequence."""
        borders = sorted({0, *self.times, len(self.mask)})
        return pairwise(borders)

    def reversed(self) -> "Reset":
        """The resets in reversed time: where a piece ended, it begins. `state` stays."""
        mask = self.mask.flip(0).roll(1, 0)
        mask[0] = False  # the last piece begins with the state before the first timestep
        return Reset.at(mask, self.state)

    def first(self, num_timesteps: int) -> "Reset":
        """The resets of the first timesteps."""
        return Reset.at(self.mask[:num_timesteps], self.state)

    def columns(self, part: slice) -> "Reset":
        """The resets of the selected sequences, detached."""
        return Reset.at(self.mask[:, part], map_state(lambda leaf: leaf[part].detach(), self.state))

    def repeated(self, times: int) -> "Reset":
        """The resets with the sequences repeated along the batch dimension."""
        state = map_state(lambda leaf: torch.cat([leaf] * times), self.state)
        return Reset(torch.cat([self.mask] * times, 1), self.times, state)


def select_rows(chosen: Bool[Tensor, " B"], new: State, kept: State) -> Any:
    """The state `new` for the chosen sequences, `kept` for the others."""
    select = SelectRows.apply if torch.is_grad_enabled() else select_where
    return map_state(lambda a, b: select(a, b, chosen.view(-1, *[1] * (a.dim() - 1))), new, kept)


def select_where(new: Tensor, kept: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen, new, kept)


class SelectRows(torch.autograd.Function):
    """`new` in the chosen rows, `kept` in the others.

    Like torch.where, but it can be backpropagated through repeatedly: overlapping windows (`Sliding`) backpropagate to
    a learnt initial state several times.
    """

    @staticmethod
    def forward(ctx: Any, new: Tensor, kept: Tensor, chosen: Tensor) -> Tensor:
        ctx.chosen = chosen
        return select_where(new, kept, chosen)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return torch.where(ctx.chosen, gradient, 0), torch.where(ctx.chosen, 0, gradient), None
