"""One window of truncated backpropagation: burn-in, timesteps with a graph, losses at the newest of them."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from bptt.contracts import refusal
from bptt.estimators.base import Backward, zero_loss
from bptt.model import SequenceModel
from bptt.shapes import State, concatenated, detach
from bptt.tasks.base import Batch, Loss


class Window(NamedTuple):
    """Timesteps begin … origin − 1 advance the state, origin … stop − 1 have a graph, start … stop − 1 their losses.

    following: where the next window begins; the state before that timestep is stored on the way.
    """

    begin: int
    origin: int
    start: int
    stop: int
    following: int


def check_burn_in(burn_in: int, length: int) -> None:
    """ValueError if no batch of `length` timesteps has any after its burn-in, which are the ones that are trained."""
    if burn_in >= length:
        raise ValueError(refusal("estimator.burn_in", f"shorter than a batch, which has {length} timesteps", burn_in))


class Ran(NamedTuple):
    """Result of a window: its loss (detached), the states at its stop and at `following`, the passes with a graph."""

    loss: Tensor
    final: State
    following: State
    passes: tuple[tuple[int, int], ...]


def run_window(
    model: SequenceModel,
    loss: Loss,
    batch: Batch,
    state: State,
    window: Window,
    *,
    weight: int,
    whole: int | None,
    backward: Backward,
) -> Ran:
    """Backpropagate the mean loss of a window from the state at its beginning.

    weight: number of losses at start … stop − 1; without any, the window only advances the state, without a graph.
    whole: number of losses of the batch, if its mean loss is wanted and this window has a share in it.
    """
    model.require_one_direction("truncated BPTT")
    begin, origin, start, stop, following = window
    passes, predictions, stored = [], [], state
    for first, last in pairwise(sorted({begin, min(following, stop), origin, start, stop})):
        part = batch.between(first, last)
        if weight and first >= origin:
            made, state, _ = model(part.inputs, state, part.resets)
            passes.append((first, last))
            predictions += [made] if first >= start else []
        else:
            with torch.no_grad():
                state = model.advance(part.inputs, state, part.resets)
        if last == following:
            stored = detach(state)
    error = zero_loss(batch)
    if weight:
        error = loss(concatenated(predictions), batch.between(start, stop)) * (1 if whole is None else weight / whole)
        if error.requires_grad:  # not where the learnt initial state alone is trained, after the first chunk
            backward(error)
    return Ran(error.detach(), detach(state), stored, tuple(passes))
