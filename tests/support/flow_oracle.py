"""Gradient by timestep and by lag, once more: autograd of a graph that is unrolled cell by cell, in plain torch.

The backward recursion of the package never runs here. Each λ_t is autograd's gradient at the state tensor itself, and
g_t that at a second name of the same tensor, under which only the layer above sees it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Cell = Callable[[Any, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


class Flow(NamedTuple):
    """‖λ_t‖ (T, B) and ‖∂L_s/∂h_{s−k}‖ (K, B) of one layer for each tensor of the state, and the share of ‖g_t‖."""

    by_timestep: list[Tensor]
    by_lag: list[Tensor]
    transport: float
    outputs: Tensor


def flows(
    cell: Cell,
    levels: Sequence[Any],
    readout: tuple[Tensor, Tensor],
    features: Tensor,
    targets: Tensor,
    weights: Tensor,
    initial: Sequence[tuple[Tensor, ...]],
    *,
    cuts: Sequence[int] = (),
    factors: Mapping[int, float] | None = None,
    masks: Sequence[Tensor] = (),
) -> list[Flow]:
    """Squared error of sequence b at timestep t counts weights[t, b]; before the timesteps `cuts` nothing flows back.

    factors: by timestep, what the gradient is multiplied by on its way from there to the timestep before.
    masks[l] (T, B, H): dropout between layer l and l + 1.
    """
    T = len(features)
    now = [tuple(part.detach().requires_grad_() for part in state) for state in initial]
    states: list[list[tuple[Tensor, ...]]] = [[] for _ in levels]
    upward: list[list[Tensor]] = [[] for _ in levels]
    errors = []
    for t in range(T):
        if t in cuts:
            now = [tuple(part.detach() for part in state) for state in now]
        elif factors and t in factors:  # the same value with another derivative
            now = [tuple(part.detach() + factors[t] * (part - part.detach()) for part in state) for state in now]
        below = features[t]
        for level, layer in enumerate(levels):
            now[level] = tuple(
                part if part.requires_grad else part.clone().requires_grad_() for part in cell(layer, below, now[level])
            )
            states[level].append(now[level])
            upward[level].append(now[level][0].view_as(now[level][0]))
            below = upward[level][-1] * masks[level][t] if level < len(masks) else upward[level][-1]
        predicted = below @ readout[0].T + readout[1]
        errors.append(((predicted - targets[t]) ** 2).sum(-1))
    terms = torch.stack(errors) * weights
    last = int(weights.any(1).nonzero().max())
    first = max([0, *(cut for cut in cuts if cut <= last)])
    found = []
    for level in range(len(levels)):
        num_parts = len(states[level][0])
        at = [state[part] for part in range(num_parts) for state in states[level]]
        total = _at(terms.sum(), at).unflatten(0, (num_parts, T))
        direct = _at(terms.sum(), upward[level])
        reached = [states[level][t][part] for part in range(num_parts) for t in range(last, first - 1, -1)]
        size = total[0].norm(dim=-1)
        share = ((total[0] - direct).norm(dim=-1) / size)[size > 0]
        found.append(
            Flow(
                [part.norm(dim=-1) for part in total],
                list(_at(terms[last].sum(), reached).norm(dim=-1).unflatten(0, (num_parts, -1))),
                float(share.mean()) if len(share) else 0.0,
                torch.stack([state[0] for state in states[level]]).detach(),
            )
        )
    return found


def _at(loss: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch.autograd.grad(loss, list(tensors), retain_graph=True, materialize_grads=True))
