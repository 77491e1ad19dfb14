"""The textbook's manual BPTT, through a whole model."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bptt.layers.full_precision import promoted, with_graph
from bptt.model import SequenceModel
from bptt.shapes import Predictions, State
from bptt.tasks.base import Batch


def manual_gradients(
    model: SequenceModel, loss: Callable[[Predictions, Batch], Tensor], batch: Batch, state: State
) -> dict[str, Tensor]:
    """dL/dθ of a whole batch by name, without autograd through time.

    Only the loss itself is differentiated by autograd, dL/dy_t. From there by hand: the readout's gradients and the
    seeds dL/dh_t = Vᵀ dL/dy_t, then each layer's backward recursion from the topmost down, then the encoder.
    Parameters of a learnt initial state are left out.
    """
    if model.blocks is not None:
        raise ValueError("manual gradients need a model without residual blocks, got some; use model.block=none")
    with torch.no_grad():
        predictions, _, records = model(batch.inputs, state, batch.resets)
    with with_graph():
        leaf = predictions.detach().requires_grad_()
        (direct,) = torch.autograd.grad(loss(leaf, batch), leaf)
    with torch.no_grad():
        gradients, seed = {}, direct
        if isinstance(model.readout, nn.Linear):
            gradients["readout.weight"] = direct.flatten(0, 1).T @ model.top(records).flatten(0, 1)
            gradients["readout.bias"] = direct.sum((0, 1))
            seed = direct @ model.readout.weight
        layers = model.gradients(records, seed)
        for index, layer in enumerate(layers):
            gradients |= {f"layers.{index}.{name}": gradient for name, gradient in layer.parameters.items()}
        if model.encoder is not None:
            features = model.features(batch.inputs)
            mask = records[0].input_mask
            at_encoder = layers[0].inputs if mask is None else layers[0].inputs * mask
            gradients["encoder.weight"] = at_encoder.flatten(0, 1).T @ promoted(features).flatten(0, 1)
    return gradients
