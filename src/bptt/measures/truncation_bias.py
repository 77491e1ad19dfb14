"""What truncation does to the gradient."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from bptt.estimators.base import Estimator
from bptt.estimators.full import Full
from bptt.layers.base import in_full_precision, promoted
from bptt.model import SequenceModel
from bptt.shapes import State, detach, map_state
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


def chunk_sizes(num_timesteps: int) -> list[int]:
    """1, 2, 4, … and the whole length."""
    return sorted({min(1 << power, num_timesteps) for power in range(num_timesteps.bit_length() + 1)})


def truncation_bias(
    model: SequenceModel,
    loss: Loss,
    batch: Batch,
    state: State,
    estimators: Mapping[K, Estimator],
) -> dict[K, Bias]:
    """The bias of each truncated estimator for the mean loss over a batch, from a carried state, at frozen weights.

    Dropout is off, as its noise is no bias, and half precision is not used, whose rounding would be most of it. Works
    on a copy: parameters and gradients of `model` stay as they are.
    ValueError where the batch has no loss.
    """
    if not any(batch.weights()):
        raise ValueError("a batch must have a loss for truncation to bias it, got one without; use a longer part of it")
    frozen, state = in_full_precision(model.without_dropout()), map_state(promoted, state)
    if batch.inputs.is_floating_point():
        batch = replace(batch, inputs=promoted(batch.inputs))
    reference = estimated_gradient(Full(), frozen, loss, batch, state)
    return {
        name: bias(estimated_gradient(estimator, frozen, loss, batch, state), reference)
        for name, estimator in estimators.items()
    }


def estimated_gradient(
    estimator: Estimator, model: SequenceModel, loss: Loss, batch: Batch, state: State
) -> dict[str, Tensor]:
    """An estimator's gradient of the mean loss over a batch, by parameter name; clears `.grad`.

    Its updates are weighted by what they divide their losses by, as if there were one step at the end.
    """
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    whole = sum(batch.weights())
    model.zero_grad()
    for update in estimator.updates(model, loss, batch, detach(state)):
        share = update.denominator / whole
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                total[name] += parameter.grad * share
        model.zero_grad()
    return total


def bias(truncated: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> Bias:
    """One gradient against another, both by parameter name; NaN or infinite where the exact one is 0."""
    estimate, reference = (torch.cat([each.flatten() for each in side.values()]) for side in (truncated, exact))
    norm, scale = estimate.norm(), reference.norm()
    return Bias(
        cosine=float(estimate @ reference / (norm * scale)),
        relative=float((estimate - reference).norm() / scale),
        norm_ratio=float(norm / scale),
        tensors={name: float((truncated[name] - exact[name]).norm() / exact[name].norm()) for name in exact},
    )
