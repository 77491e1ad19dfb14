"""The first value of a batch that is not finite."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bptt.layers.full_precision import promoted
from bptt.model import SequenceModel
from bptt.shapes import Predictions, State, Targets
from bptt.tasks.base import Batch, within


class Origin(NamedTuple):
    """The first thing that is not finite, and its timestep in the batch."""

    what: str
    timestep: int


def first_non_finite(
    model: SequenceModel, errors: Callable[[Predictions, Targets], Tensor], batch: Batch, state: State
) -> Origin | None:
    """The earliest of inputs, hidden states, predictions and losses that is not finite; None if all are.

    Runs the batch from a given state, without dropout. Within a timestep, the one that is computed first.
    """
    with torch.no_grad():
        predictions, _, records = model.without_dropout()(batch.inputs, state, batch.resets)
        predictions32, targets = promoted(predictions), batch.targets
        if batch.mask is not None:
            predictions32, targets = within(batch.mask, predictions32), within(batch.mask, targets)
        losses = errors(predictions32, targets)
    looked_at = {"the input": batch.inputs}
    looked_at |= {f"the hidden state of layer {number}": each.outputs for number, each in enumerate(records, start=1)}
    looked_at |= {"the prediction": predictions, "the loss": losses}
    origins = []
    for what, values in looked_at.items():
        bad = (~values.isfinite()).flatten(1).any(1).nonzero()
        origins += [Origin(what, int(bad.min()))] if len(bad) else []
    return min(origins, key=lambda origin: origin.timestep, default=None)
