"""The gradient of every sequence of a batch, at about the cost of one backward pass."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bptt.layers.base import Layer, through_masks
from bptt.layers.diagonal import DiagonalLayer, factors
from bptt.layers.full_precision import full_precision_no_grad, in_full_precision, promoted, with_graph
from bptt.layers.record import Record, previous_hidden
from bptt.layers.stock import StockLayer, promoted_pass
from bptt.model import SequenceModel
from bptt.shapes import Features, Outputs, State
from bptt.tasks.base import Batch, Loss


def per_sequence_gradients(
    model: SequenceModel, loss: Loss, batch: Batch, state: State
) -> dict[str, Float[Tensor, "B ..."]]:
    """dL/dθ through each sequence of a batch by name, (B, *shape of θ); the sum over sequences is dL/dθ.

    L is the loss of the whole batch: times B, the gradients are those of each sequence's own mean, if all sequences
    have equally many losses. One backward recursion finds the gradient δ_t (T, B, ·) at all preactivations; a weight's
    gradient is then Σ_t δ_t xᵀ for each sequence; the gradient of the batch sums over sequences as well (Goodfellow
    2015, for feedforward networks). A diagonal recurrence's gradients at a_t and b_t go through its coefficients, for
    all sequences at once. Other layers are differentiated sequence by sequence.

    Parameters of a learnt initial state are left out. ValueError for a model with residual blocks.
    """
    if model.blocks is not None:
        raise ValueError("per-sequence gradients need a model without residual blocks, got some; use model.block=none")
    with torch.no_grad():
        predictions, _, records = model(batch.inputs, state, batch.resets)
    with with_graph():
        leaf = predictions.detach().requires_grad_()
        (direct,) = torch.autograd.grad(loss(leaf, batch), leaf)
    gradients: dict[str, Tensor] = {}
    with full_precision_no_grad(predictions):
        seed = promoted(direct)
        if isinstance(model.readout, nn.Linear):
            gradients["readout.weight"] = outer(seed, promoted(model.top(records)))
            gradients["readout.bias"] = seed.sum(0)
            seed = seed @ promoted(model.readout.weight)
        for level, (layer, record) in reversed(list(enumerate(zip(model.levels, records)))):
            if record.mask is not None:
                seed = seed * record.mask
            seed, parameters = _layer_gradients(layer, record, seed)
            gradients |= {f"layers.{level}.{name}": gradient for name, gradient in parameters.items()}
        if model.encoder is not None:
            seed = seed if records[0].input_mask is None else seed * records[0].input_mask
            gradients["encoder.weight"] = outer(seed, promoted(model.features(batch.inputs)))
    return gradients


def _layer_gradients(layer: Layer, record: Record, seed: Outputs) -> tuple[Features, dict[str, Tensor]]:
    """dL/dx_t (T, B, D), and dL/dθ of each sequence by name."""
    if isinstance(layer, DiagonalLayer):
        return _diagonal_gradients(layer, record, seed)
    if not isinstance(layer, StockLayer):
        alone = []
        for index in range(seed.shape[1]):
            part = slice(index, index + 1)
            alone.append(layer.gradients(record.columns(part), seed[:, part]))
        stacked = {name: torch.stack([each.parameters[name] for each in alone]) for name in alone[0].parameters}
        return torch.cat([each.inputs for each in alone], dim=1), stacked
    layer, masks = layer.as_recorded(record), record.weight_masks
    record, seed, _ = promoted_pass(record, seed, None)
    _, deltas = layer.manual_bptt(record, seed, None)
    assert deltas is not None
    gradients = (
        outer(deltas.from_input, record.inputs),
        outer(deltas.from_hidden, previous_hidden(record)),
        deltas.from_input.sum(0),
        deltas.from_hidden.sum(0),
    )
    names = [f"kernel.{name}" for name, _ in layer.kernel.named_parameters()]
    return deltas.from_input @ promoted(layer.weight_ih), through_masks(dict(zip(names, gradients)), masks)


class Coefficients(nn.Module):
    """a_t and b_t of a diagonal recurrence as a forward pass, which torch.func.functional_call needs."""

    def __init__(self, layer: DiagonalLayer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer.coefficients(inputs)


def _diagonal_gradients(layer: DiagonalLayer, record: Record, seed: Outputs) -> tuple[Features, dict[str, Tensor]]:
    """One scan for dL/da_t and dL/db_t; each sequence's own sum over timesteps only in the coefficients."""
    layer = in_full_precision(layer)
    inputs = promoted(record.inputs)
    a = factors(layer.coefficients, inputs)
    at_b = layer.backward_scan(a, seed, None, record.reset).hidden
    at_a = layer.gradient_at_a(at_b, promoted(previous_hidden(record)), a, by_sequence=True)
    coefficients = Coefficients(layer)
    named = {name: parameter.detach() for name, parameter in coefficients.named_parameters()}

    def one_sequence(inputs: Tensor, at_a: Tensor, at_b: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        ran = torch.func.vjp(lambda *own: torch.func.functional_call(coefficients, *own), named, (inputs,))
        parameters, (at_inputs,) = ran[1]((at_a, at_b))
        return parameters, at_inputs

    dimensions = (1, 0 if a.dim() == 1 else 1, 1)
    parameters, at_inputs = torch.func.vmap(one_sequence, dimensions, (0, 1))(inputs, at_a, at_b)
    return at_inputs, {name.removeprefix("layer."): each for name, each in parameters.items()}


def outer(rows: Float[Tensor, "T B M"], columns: Float[Tensor, "T B N"]) -> Float[Tensor, "B M N"]:
    """Σ_t rows_t columns_tᵀ for each sequence."""
    return torch.bmm(rows.permute(1, 2, 0), columns.transpose(0, 1))
