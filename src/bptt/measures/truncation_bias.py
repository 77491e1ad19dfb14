"""Bias of truncated gradients against the exact one.

Longer than 200 lines: bias, noise and their estimates share one decomposition of gradients.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from bptt.estimators.base import Estimator
from bptt.estimators.chunked import Chunked
from bptt.estimators.full import Full
from bptt.estimators.sliding import Sliding
from bptt.layers.full_precision import in_full_precision, promoted, with_graph
from bptt.measures.norms import norm
from bptt.model import SequenceModel
from bptt.shapes import State, detach, leaves, map_state
from bptt.tasks.base import Batch, Loss

K = TypeVar("K")


class Bias(NamedTuple):
    """A truncated gradient ĝ against the exact one g, over all parameters.

    cosine: ĝ·g / ‖ĝ‖‖g‖. relative: ‖ĝ − g‖ / ‖g‖. norm_ratio: ‖ĝ‖ / ‖g‖.
    tensors: the relative bias of each parameter by name.
    noise: for an estimator with random numbers, the root mean square of ‖ĝ − E ĝ‖ / ‖g‖ over draws. The other numbers
        then belong to the mean ĝ over draws, `relative` without the noise that remains in it.
    """

    cosine: float
    relative: float
    norm_ratio: float
    tensors: dict[str, float]
    noise: float = 0.0


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
    whole: Batch | None = None,
    exact: Mapping[str, Tensor] | None = None,
    num_draws: int = 1,
) -> dict[K, Bias]:
    """The bias of each truncated estimator for the mean loss over a batch, from a given state, at frozen weights.

    Dropout is off because its noise is no bias; half precision is not used because its rounding would be most of it.
    Works on a copy: parameters and gradients of `model` stay as they are.

    whole, start: the longer batch that `batch` is a part of, and the part's first timestep there. Chunks and strides
        have the borders that they have in the longer batch, as in training.
    exact: the exact gradient, if it is known already. num_draws: how often an estimator with random numbers is run.
    ValueError if the batch has no loss.
    """
    if not any(batch.weights()):
        raise ValueError(
            "a batch must have a loss for truncation to bias it, got one without; use a longer part of it, or data "
            "with targets"
        )
    frozen, batch, state = _in_full_precision(model, batch, state)
    due = (whole or batch).timesteps_with_loss()

    def gradient(estimator: Estimator) -> dict[str, Tensor]:
        parts = [batch.between(*part) for part in _parts(batch, estimator, start, due)]
        return estimated_gradient(estimator, frozen, loss, parts, state)

    reference = exact or gradient(Full())
    biases = {}
    for name, estimator in estimators.items():
        if num_draws > 1 and is_stochastic(estimator):
            before, drawn = estimator.state_dict(), estimator.drawing_anew()
            biases[name] = bias_and_noise([gradient(drawn) for _ in range(num_draws)], reference)
            estimator.load_state_dict(before)
        else:
            biases[name] = bias(gradient(estimator), reference)
    return biases


def exact_gradient(model: SequenceModel, loss: Loss, batch: Batch, state: State) -> dict[str, Tensor]:
    """The gradient that `truncation_bias` compares with, by parameter name."""
    frozen, batch, state = _in_full_precision(model, batch, state)
    return estimated_gradient(Full(), frozen, loss, [batch], state)


def _in_full_precision(model: SequenceModel, batch: Batch, state: State) -> tuple[SequenceModel, Batch, State]:
    """A copy of the model without dropout, and the batch and the state, in float32 at least."""
    if batch.inputs.is_floating_point():
        batch = replace(batch, inputs=promoted(batch.inputs))
    return in_full_precision(model.without_dropout()), batch, map_state(promoted, state)


def estimated_gradient(
    estimator: Estimator, model: SequenceModel, loss: Loss, batch: Batch | Sequence[Batch], state: State
) -> dict[str, Tensor]:
    """An estimator's gradient of the mean loss over a batch, by parameter name; clears `.grad`.

    If the batch is given in several parts, the gradient is cut between them.

    Its updates are weighted by what they divide their losses by, as if there were one step at the end. The gradient
    reaches a learnt initial state through the sequences whose `state` equals it.
    """
    parts = [batch] if isinstance(batch, Batch) else batch
    parameters = dict(model.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    whole = sum(sum(part.weights()) for part in parts)
    model.zero_grad()
    with with_graph():
        state = _with_learnt_initial_state(model, detach(state))
        for part in parts:
            for update in estimator.updates(model, loss, part, state):
                share = update.denominator / whole
                for name, parameter in parameters.items():
                    if parameter.grad is not None:
                        total[name] += parameter.grad * share
                model.zero_grad()
                state = update.state
    return total


def _parts(batch: Batch, estimator: Estimator, start: int, due: list[bool]) -> list[tuple[int, int]]:
    """Spans of a batch that give an estimator's chunks or strides the borders that they have in a longer batch.

    The batch begins at timestep `start` of the longer one, which has losses at the timesteps `due`. One span if the
    estimator has no fixed borders, or counts them from the start of this batch anyway. A window of `Sliding` does not
    reach back over the first border.
    """
    length = batch.num_timesteps
    borders: list[int] = []
    if length == len(due) or getattr(estimator, "burn_in", False):
        return [(0, length)]
    if isinstance(estimator, Chunked):
        borders = [first - start for first, _ in estimator.chunks(due, 0)]
    elif isinstance(estimator, Sliding):
        borders = [-start % estimator.stride]
    return list(pairwise([0, *(border for border in borders if 0 < border < length), length]))


def _with_learnt_initial_state(model: SequenceModel, state: State) -> State:
    """The state, connected to the learnt initial state for the sequences that begin with exactly that.

    The model has learnt it, or a cell of one's own.
    """
    initial = model.initial_state(len(leaves(state)[0]))
    if not any(leaf.requires_grad for leaf in leaves(initial)):
        return state
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
    estimate, reference = (flat_vector(side) for side in (truncated, exact))
    size, scale = estimate.norm(), reference.norm()
    return Bias(
        cosine=float(estimate @ reference / (size * scale)),
        relative=float((estimate - reference).norm() / scale),
        norm_ratio=float(size / scale),
        tensors={name: float(norm(truncated[name].double() - exact[name]) / norm(exact[name])) for name in exact},
    )


def bias_and_noise(draws: Sequence[Mapping[str, Tensor]], exact: Mapping[str, Tensor]) -> Bias:
    """The bias of the mean of several draws of a gradient, and the noise of a single one.

    The mean of n draws still has noise²/n of variance, which is subtracted from the square of the relative bias; a
    bias that is not above this noise is 0.
    """
    mean = {name: torch.stack([draw[name] for draw in draws]).double().mean(0) for name in exact}
    of_mean, scale = bias(mean, exact), flat_vector(exact).norm()
    deviations = [(flat_vector(draw) - flat_vector(mean)).norm() / scale for draw in draws]
    variance = float(torch.stack(deviations).square().sum()) / (len(draws) - 1)
    square = of_mean.relative**2 - variance / len(draws)
    relative = math.nan if math.isnan(square) else math.sqrt(max(0.0, square))
    return of_mean._replace(relative=relative, noise=math.sqrt(variance))


def is_stochastic(estimator: Estimator) -> bool:
    """True if the estimator draws random numbers, from a generator of its own."""
    return isinstance(getattr(estimator, "generator", None), torch.Generator)


def gradient_noise(draws: Sequence[Sequence[Mapping[str, Tensor]]]) -> float:
    """Standard deviation of a single gradient over batches and draws, relative to the root mean square of its norm.

    draws: for each of several batches, equally many gradients; one of each if nothing is drawn. The variance is the sum
    of that between batches and of the mean variance within them:

        Σ_b ‖ḡ_b − ḡ‖² / (B − 1) + (1 − 1/D) · Σ_b Σ_d ‖g_bd − ḡ_b‖² / (B (D − 1))

    The factor 1 − 1/D is for the variance of the D draws that is part of that between the means. A bias below the noise
    of the exact gradient is hidden by the choice of the batch. NaN for a single batch.
    """
    if len(draws) < 2:
        return math.nan
    vectors = torch.stack([torch.stack([flat_vector(each) for each in of_batch]) for of_batch in draws])
    between = vectors.mean(1).var(0).sum()
    within = vectors.var(1, correction=0).sum(1).mean()
    return float(((between + within) / vectors.square().sum(2).mean()).sqrt())


def flat_vector(gradient: Mapping[str, Tensor]) -> Float[Tensor, " P"]:
    """All parameters' gradients as one vector, in float64."""
    return torch.cat([each.flatten() for each in gradient.values()]).double()
