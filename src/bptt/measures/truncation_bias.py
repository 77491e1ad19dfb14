"""Bias of truncated gradients against the exact one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from bptt.estimators.base import Estimator
from bptt.estimators.chunked import Chunked
from bptt.estimators.full import Full
from bptt.estimators.sliding import Sliding
from bptt.layers.base import in_full_precision, promoted
from bptt.measures.norms import norm
from bptt.model import SequenceModel
from bptt.shapes import State, detach, leaves, map_state
from bptt.tasks.base import Batch, Loss

K = TypeVar("K")


class Bias(NamedTuple):
    """A truncated gradient ĝ against the exact one g, over all parameters.

    cosine: ĝ·g / ‖ĝ‖‖g‖. relative: ‖ĝ − g‖ / ‖g‖. norm_ratio: ‖ĝ‖ / ‖g‖.
    tensors: the relative bias of each parameter by name.
    """

    cosine: float
    relative: float
    norm_ratio: float
    tensors: dict[str, float]


def chunk_sizes(num_timesteps: int, *, longest: int | None = None, also: int | None = None) -> list[int]:
    """1, 2, 4, … and the whole length, in ascending order.

    longest: sizes above it are left out. also: a size to include in any case, such as the one in use.
    """
    powers = {min(1 << power, num_timesteps) for power in range(num_timesteps.bit_length() + 1)}
    return sorted({size for size in powers if longest is None or size <= longest} | ({also} if also else set()))


def truncation_bias(
    model: SequenceModel,
    loss: Loss,
    batch: Batch,
    state: State,
    estimators: Mapping[K, Estimator],
    *,
    start: int = 0,
) -> dict[K, Bias]:
    """The bias of each truncated estimator for the mean loss over a batch, from a given state, at frozen weights.

    Dropout is off because its noise is no bias; half precision is not used because its rounding would be most of it.
    Works on a copy: parameters and gradients of `model` stay as they are.

    start: place of the batch's first timestep, if it is a part of a longer batch. Chunks and strides are counted from
        the beginning of the longer batch, as in training.
    ValueError if the batch has no loss.
    """
    if not any(batch.weights()):
        raise ValueError("a batch must have a loss for truncation to bias it, got one without; use a longer part of it")
    frozen, state = in_full_precision(model.without_dropout()), map_state(promoted, state)
    if batch.inputs.is_floating_point():
        batch = replace(batch, inputs=promoted(batch.inputs))
    reference = estimated_gradient(Full(), frozen, loss, batch, state)
    return {
        name: bias(estimated_gradient(estimator, frozen, loss, batch, state, start=start), reference)
        for name, estimator in estimators.items()
    }


def estimated_gradient(
    estimator: Estimator, model: SequenceModel, loss: Loss, batch: Batch, state: State, *, start: int = 0
) -> dict[str, Tensor]:
    """An estimator's gradient of the mean loss over a batch, by parameter name; clears `.grad`.

    Its updates are weighted by what they divide their losses by, as if there were one step at the end. The gradient
    reaches a learnt initial state through the sequences whose `state` equals it.

    start: as in `truncation_bias`.
    """
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    whole = sum(batch.weights())
    state = _with_learnt_initial_state(model, detach(state))
    model.zero_grad()
    for part in _aligned(batch, estimator, start):
        for update in estimator.updates(model, loss, part, state):
            share = update.denominator / whole
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    total[name] += parameter.grad * share
            model.zero_grad()
            state = update.state
    return total


def _aligned(batch: Batch, estimator: Estimator, start: int) -> list[Batch]:
    """The batch, split at the first border of chunks or strides if these are counted from `start` timesteps earlier."""
    grid = {Chunked: "chunk_size", Sliding: "stride"}.get(type(estimator))
    lead = 0 if grid is None else -start % getattr(estimator, grid)
    if lead in (0, batch.num_timesteps) or lead > batch.num_timesteps:
        return [batch]
    return [batch.between(0, lead), batch.between(lead, batch.num_timesteps)]


def _with_learnt_initial_state(model: SequenceModel, state: State) -> State:
    """The state, connected to the learnt initial state for the sequences that begin with exactly that."""
    if model.initial is None:
        return state
    batch_size = len(leaves(state)[0])
    initial = model.initial_state(batch_size)
    begins = (
        torch.stack([(new == kept).flatten(1).all(1) for new, kept in zip(leaves(initial), leaves(state))])
        .all(0)
        .tolist()
    )

    def rows(new: Tensor, kept: Tensor) -> Tensor:
        # Slices and cat keep nothing for backward: overlapping windows backpropagate through them several times.
        return torch.cat([(new if begin else kept)[b : b + 1] for b, begin in enumerate(begins)])

    connected: State = map_state(rows, initial, state)
    return connected


def bias(truncated: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> Bias:
    """One gradient against another, both by parameter name; NaN or infinite where the exact one is 0."""
    # In float64, where squares of float32 gradients neither overflow nor underflow.
    estimate, reference = (joined(side) for side in (truncated, exact))
    size, scale = estimate.norm(), reference.norm()
    return Bias(
        cosine=float(estimate @ reference / (size * scale)),
        relative=float((estimate - reference).norm() / scale),
        norm_ratio=float(size / scale),
        tensors={name: float(norm(truncated[name].double() - exact[name]) / norm(exact[name])) for name in exact},
    )


def joined(gradient: Mapping[str, Tensor]) -> Float[Tensor, " P"]:
    """All parameters' gradients as one vector, in float64."""
    return torch.cat([each.flatten() for each in gradient.values()]).double()
