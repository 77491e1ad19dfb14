"""Legend of array shapes, and functions on the recurrent state.

T timesteps, B sequences, D input size, H hidden size, V output size. Arrays are time-major: (T, B, ·).

A *state* is passed from one timestep to the next. It is a tensor (B, H) for Elman and GRU, a named tuple of tensors
for the LSTM, and any nested tuple of tensors for a user's own cell and for a stack of layers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

State = Tensor | tuple[Any, ...]

Inputs = Shaped[Tensor, "T B *D"]  # features (T, B, D), or token ids (T, B) of any integer type
Targets = Shaped[Tensor, "T B *V"]
Mask = Bool[Tensor, "T B"]
Predictions = Float[Tensor, "T B V"]
Features = Float[Tensor, "T B D"]
Outputs = Float[Tensor, "T B H"]
Hidden = Float[Tensor, "B H"]
Input = Float[Tensor, "B D"]


def map_state(function: Callable[..., Tensor], *states: State) -> Any:
    """Apply `function` to the corresponding tensors of states with equal structure. The result has that structure."""
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    parts = [map_state(function, *parts) for parts in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def leaves(state: State) -> list[Tensor]:
    """The tensors of a state, in the order of its structure."""
    return [state] if isinstance(state, Tensor) else [leaf for part in state for leaf in leaves(part)]


def detach(state: State) -> Any:
    """Detach the state from the graph, so that no gradient flows into earlier timesteps."""
    return map_state(Tensor.detach, state)


def concatenated(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate; skip the copy if there is only one part (the common case)."""
    return torch.cat(list(parts), dim) if len(parts) > 1 else parts[0]
