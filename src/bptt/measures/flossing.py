"""Gradient flossing: a regulariser that pulls Lyapunov exponents towards 0."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from bptt.contracts import at_least
from bptt.layers.base import Layer, like
from bptt.layers.full_precision import promoted, promoted_with_graph, with_graph
from bptt.layers.record import Record
from bptt.measures.jacobian import lost_in_rounding, random_orthonormal
from bptt.shapes import leaves, map_state


def flossing(layer: Layer, record: Record, *, num_exponents: int, stride: int = 1) -> Float[Tensor, ""]:
    """Mean of λ_i² over the largest Lyapunov exponents and the sequences of a recorded pass (Engelken 2023).

    λ_i = (1/T) Σ_t log |R_ii| in nats per timestep. Orthonormal tangent vectors of the whole state run forward through
    the Jacobians ∂s_t/∂s_{t−1} and are made orthonormal again by QR every `stride` timesteps and at the end. It is 0 if
    gradients neither vanish nor explode in these directions.

    In a record with resets only the timesteps before the first one count.

    Differentiable with respect to the layer's parameters, through the states, the Jacobians and the decomposition; the
    inputs and the initial state are constants. At most as many exponents as the state has numbers. Time O(S²·k + S³)
    for S numbers a sequence and timestep.

    Neither it nor its gradient is finite if a Jacobian is 0, or if a vector was lost in rounding (|R_jj| below the
    precision of R_11, as at the units of relu that are off, or at a large `stride`): such an exponent cannot be known.
    """
    at_least(1, num_exponents=num_exponents, stride=stride)
    if record.reset is not None:  # only the timesteps before the first reset: no tangent vector crosses one
        initial = record.reset.begin(0, record.initial)
        record = record.first(next((time for time in record.reset.times if time), len(record.inputs)))
        record = record._replace(initial=initial)
    inputs, state = promoted(record.inputs), map_state(promoted, record.initial)
    widths = [leaf[0].numel() for leaf in leaves(state)]

    def split(joined: Tensor) -> list[Tensor]:
        return [part.view(-1, *leaf.shape[1:]) for part, leaf in zip(joined.split(widths, -1), leaves(state))]

    def step(joined: Float[Tensor, " S"], input: Float[Tensor, " D"]) -> tuple[Tensor, Tensor]:
        after = layer.step(input.unsqueeze(0), like(state, split(joined.unsqueeze(0))))
        flat = torch.cat([leaf.flatten(1) for leaf in leaves(after)], dim=1).squeeze(0)
        return flat, flat

    with torch.autocast(inputs.device.type, enabled=False), with_graph():
        layer = layer.with_masked_weights(record.weight_masks) if record.weight_masks else layer
        layer = promoted_with_graph(layer)
        now = torch.cat([leaf.flatten(1) for leaf in leaves(state)], dim=1)
        basis = random_orthonormal(sum(widths), min(num_exponents, sum(widths))).to(now).expand(len(now), -1, -1)
        total = now.new_zeros(basis.shape[0], basis.shape[2])
        for t, input in enumerate(inputs.unbind(), start=1):
            jacobian, now = vmap(jacrev(step, has_aux=True))(now, input)
            basis = jacobian @ basis
            if t % stride == 0 or t == len(inputs):
                basis, upper = torch.linalg.qr(basis)
                growth = upper.diagonal(dim1=-2, dim2=-1).abs()
                total = total + growth.log().masked_fill(lost_in_rounding(growth, sum(widths)), math.nan)
        return (total / len(inputs)).square().mean()
