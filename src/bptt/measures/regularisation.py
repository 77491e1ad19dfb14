"""A regulariser against vanishing gradients."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bptt.layers.base import Layer, vjp
from bptt.layers.elman import Elman
from bptt.layers.full_precision import full_precision_no_grad, promoted, promoted_with_graph, with_graph
from bptt.layers.record import Record, StateGradients
from bptt.shapes import State, leaves, map_state

ACTIVE = 1e-10  # gradients below this share of the largest one count as 0

Joined = Float[Tensor, "T B S"]


def omega(layer: Layer, records: Sequence[Record], gradients: Sequence[StateGradients]) -> Float[Tensor, ""]:
    """Ω = mean of (‖δ_t ∂s_t/∂s_{t−1}‖² / ‖δ_t‖² − 1)² over timesteps and sequences (Pascanu, Mikolov & Bengio 2013).

    0 if one step back through the recurrence keeps the norm of the gradient δ_t = dL/ds_t. s_t is the whole state,
    for an LSTM (h, c) joined, with its tensors taken as independent. Norms are squared as in the authors' code.
    Timesteps without gradient, ‖δ_t‖ ≤ 1e-10 of the longest, are left out; with none left Ω = 0. The scale of L
    cancels.

    records, gradients: of the passes of one update, and the result of the layer's `adjoint` for each. The weights are
        those of each pass, masked if recurrent weights were dropped.

    Differentiable with respect to `recurrent_parameters(layer)`, immediately: δ_t and all states are constants. Hence
    in Elman's δ_t ∂h_t/∂h_{t−1} = (φ′_t ∘ δ_t) W_hh so is φ′_t, a function of h_t. The gates of GRU and LSTM are
    functions of h_{t−1} and W_hh, and move with W_hh. ValueError for a cell that does not name its `recurrent` ones.
    """
    recurrent_parameters(layer)
    with full_precision_no_grad(records[0].outputs), with_graph():
        longest = torch.stack([leaf.abs().max() for each in gradients for leaf in leaves(each.states)]).max()
        scale = torch.where(longest > 0, longest, 1)  # squares of small gradients would underflow
        pairs = [_transported(layer, record, each, scale) for record, each in zip(records, gradients, strict=True)]
        arrived, through = (torch.cat([side.flatten(0, 1).square().sum(-1) for side in sides]) for sides in zip(*pairs))
        arrived = torch.where(torch.cat([_continues(record) for record in records]), arrived, 0)
        active = arrived > ACTIVE**2 * arrived.max()
        terms = (through[active] / arrived[active] - 1).square()
        return terms.sum() / max(1, len(terms))


def recurrent_parameters(layer: Layer) -> dict[str, Tensor]:
    """The parameters that the layer says multiply its state, by name."""
    if not layer.recurrent:
        raise ValueError(
            "regulariser omega needs a layer that names the parameters which multiply its state, got "
            f"{type(layer).__name__}; set `recurrent` on its class, or use regulariser=none"
        )
    return {name: layer.get_parameter(name) for name in layer.recurrent}


def _transported(layer: Layer, record: Record, gradients: StateGradients, scale: Tensor) -> tuple[Joined, Joined]:
    """δ_t and δ_t ∂s_t/∂s_{t−1} of one pass, over `scale`; the second depends on the recurrent parameters."""
    totals = map_state(lambda leaf: leaf.detach() / scale, gradients.states)
    layer = layer.with_masked_weights(record.weight_masks) if record.weight_masks else layer
    layer = promoted_with_graph(layer)
    if isinstance(layer, Elman):
        return totals, (layer.slope(record) * totals) @ layer.weight_hh.to(totals.dtype)
    inputs, before = promoted(record.inputs), _states_before(layer, record)
    sizes = inputs.shape[:2]
    # All timesteps side by side: their states are known.
    before = map_state(lambda leaf: leaf.flatten(0, 1).requires_grad_(), before)
    after = layer.step(inputs.flatten(0, 1), before)
    arrived = _independent(leaves(after), [leaf.flatten(0, 1) for leaf in leaves(totals)])
    through = vjp(leaves(after), leaves(before), arrived, create_graph=True)
    return torch.cat(arrived, -1).unflatten(0, sizes), torch.cat(through, -1).unflatten(0, sizes)


def _continues(record: Record) -> Bool[Tensor, " N"]:
    """Mask (T·B,): true if the state at a timestep continues the one before, false at a reset."""
    if record.reset is None:
        return torch.ones(record.outputs.shape[:2].numel(), dtype=torch.bool, device=record.outputs.device)
    return ~record.reset.mask.flatten()


def _states_before(layer: Layer, record: Record) -> State:
    """s_0 … s_{T−1}, each tensor (T, B, ·); only outputs are recorded, so a larger state is computed again."""
    states = [map_state(promoted, record.initial)]
    reset = record.reset
    if isinstance(states[0], Tensor):
        arrived = torch.cat([states[0].unsqueeze(0), promoted(record.outputs[:-1])])
        return arrived if reset is None else reset.begin_all_(arrived, promoted(reset.state))
    with torch.no_grad():
        for time, input in enumerate(promoted(record.inputs).unbind()):
            if reset is not None and time in reset.times:
                states[-1] = reset.begin(time, states[-1])
            states.append(layer.step(input, states[-1]))
    states.pop()
    return map_state(lambda *leaf: torch.stack(leaf), *states)


def _independent(state: list[Tensor], totals: list[Tensor]) -> list[Tensor]:
    """dL/d(each tensor of the state) with the others held fixed, from the total derivatives.

    In total = (1 + N) · independent, N is what passes between tensors of one timestep, as from c_t through h_t. They
    are computed in some order, so N to the power of their number is 0, and that many corrections are exact.
    """
    independent = totals
    for _ in state[1:]:
        passed = vjp(state, state, independent, create_graph=True)
        independent = [
            (total - (both - own)).detach() if leaf.requires_grad else total
            for leaf, total, both, own in zip(state, totals, passed, independent)
        ]
    return independent
