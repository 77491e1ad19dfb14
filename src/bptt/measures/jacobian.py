"""The Jacobian product ∂h_T/∂h_t = ∏ ∂h_s/∂h_{s−1}, which makes gradients vanish or explode.

Each measure looks at one sequence of a record, with many seeds side by side. The weights are those of the recorded
pass, masked if recurrent weights were dropped.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bptt.contracts import between
from bptt.layers.base import Layer, like
from bptt.layers.diagonal import DiagonalLayer
from bptt.layers.full_precision import full_precision_no_grad, in_full_precision, promoted
from bptt.layers.record import Record
from bptt.measures.eigenvalues import eigenvalues, exponents
from bptt.measures.norms import norm
from bptt.shapes import leaves, map_state


def jacobian_products(layer: Layer, record: Record, *, sequence: int = 0) -> Float[Tensor, "T H H"]:
    """∂h_T/∂h_t for t = 1 … T, total derivatives through all of the state; the last one is the identity."""
    size = record.outputs.shape[-1]
    return layer.adjoint(*_seeded(record, sequence, torch.eye(size).to(record.outputs))).hidden


def singular_values(layer: Layer, record: Record, *, sequence: int = 0) -> Float[Tensor, "T H"]:
    """Singular values of ∂h_T/∂h_t, descending; NaN where the product overflows."""
    products = jacobian_products(layer, record, sequence=sequence)
    finite = products.isfinite().all(-1).all(-1)
    values = torch.full_like(products[..., 0], torch.nan)
    values[finite] = torch.linalg.svdvals(products[finite])
    return values


def frobenius_norms(
    layer: Layer, record: Record, *, num_probes: int = 16, generator: torch.Generator | None = None, sequence: int = 0
) -> Float[Tensor, " T"]:
    """Estimate of ‖∂h_T/∂h_t‖_F from random probes v ~ N(0, I): E‖Jᵀ v‖² = ‖J‖²_F. For layers too wide for all of J.

    generator: draws the probes. By default a separate one, so that the random numbers of training do not change.
    """
    own = torch.Generator().manual_seed(0) if generator is None else generator
    probes = torch.randn(num_probes, record.outputs.shape[-1], generator=own).to(record.outputs)
    products = layer.adjoint(*_seeded(record, sequence, probes)).hidden
    return norm(products, dim=(1, 2)) / math.sqrt(num_probes)


def lyapunov_exponents(
    layer: Layer, record: Record, *, num_exponents: int, stride: int = 1, sequence: int = 0
) -> Float[Tensor, " N"]:
    """The largest Lyapunov exponents of the whole state along a recorded pass, in nats per timestep, descending.

    Random orthonormal vectors go back through the Jacobians and are made orthonormal again by QR every `stride`
    timesteps; the exponents are the mean logarithms of the diagonal of R (Benettin et al. 1980; Vogt et al. 2022).
    Above 0 gradients explode along the pass, below 0 they vanish. Of a diagonal recurrence they are the means of
    log |a_t|, exactly, twice for a complex unit.

    The first vectors are those of a fixed seed: the same call gives the same numbers, and no random number of training
    is drawn. If the sequence begins again within the pass, only what follows its last reset counts. An exponent is NaN
    if its vector was lost in rounding (|R_jj| below the precision of R_11, for example at Jacobians of low rank) or a
    number was not finite; −∞ if a Jacobian was 0.
    """
    record, sequence = _since_last_reset(record, sequence)
    widths = [leaf.shape[-1] for leaf in leaves(record.initial)]
    one_each = "there is one exponent for each number of the state"
    between(1, sum(widths), num_exponents=num_exponents, open_high=False, remedy=one_each)
    if isinstance(layer, DiagonalLayer):
        units = exponents(eigenvalues(layer, record, sequence=sequence))
        return units.repeat_interleave(2 if layer.complex_units else 1).sort(descending=True).values[:num_exponents]
    pieces, layer, alone = [], in_full_precision(layer.as_recorded(record)), _alone(record, sequence)
    state = map_state(lambda leaf: promoted(leaf[alone]), record.initial)
    with full_precision_no_grad(record.outputs):
        for inputs in torch.split(promoted(record.inputs[:, alone]), stride):
            outputs, after = layer(inputs, state)
            pieces.append(Record(inputs, state, outputs, after))
            state = after
    basis = random_orthonormal(sum(widths), num_exponents).to(outputs.device)
    total = basis.new_zeros(num_exponents)
    for piece in reversed(pieces):
        seeded, seed = _seeded(piece, 0, torch.zeros(num_exponents, outputs.shape[-1]).to(outputs))
        arrived = layer.adjoint(seeded, seed, like(state, basis.to(outputs).T.split(widths, dim=-1))).initial
        basis, upper = torch.linalg.qr(torch.cat(leaves(arrived), dim=-1).T.double())
        growth = upper.diagonal().abs()
        growth = growth.log().masked_fill(lost_in_rounding(growth, sum(widths), outputs.dtype), math.nan)
        total = torch.where(total == -math.inf, total, total + growth)
    total = total.masked_fill(total == math.inf, math.nan)
    return (total / len(record.inputs))[total.nan_to_num(-math.inf).argsort(descending=True)]


def lost_in_rounding(
    growth: Float[Tensor, "*batch N"], size: int, precision: torch.dtype | None = None
) -> Bool[Tensor, "*batch N"]:
    """True if |R_jj| is 0 up to the rounding of R_11, and its logarithm is unknown; false if R_11 = 0.

    growth: |R_jj|, of Jacobians of `size` rows in this precision, by default its own.
    """
    first = growth[..., :1]
    return (growth <= first * size * torch.finfo(precision or growth.dtype).eps) & (first > 0)


def random_orthonormal(size: int, count: int) -> Float[Tensor, "S N"]:
    """Orthonormal columns in uniformly random directions from a fixed seed, in float64.

    Columns of the identity can be invariant directions of the Jacobians. Then the largest exponents may be missed.
    """
    drawn = torch.randn(size, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis: Tensor = torch.linalg.qr(drawn).Q
    return basis


def _alone(record: Record, sequence: int) -> slice:
    between(0, record.outputs.shape[1], sequence=sequence, remedy="it is the place of one in the batch")
    return slice(sequence, sequence + 1)


def _seeded(record: Record, sequence: int, seeds: Float[Tensor, "N H"]) -> tuple[Record, Float[Tensor, "T N H"]]:
    """One sequence alone, and the seeds at its last timestep."""
    alone = _alone(record, sequence)
    initial = map_state(lambda leaf: leaf[alone], record.initial)
    seed = record.outputs.new_zeros(len(record.outputs), *seeds.shape)
    seed[-1] = seeds
    reset = None if record.reset is None else record.reset.columns(alone)
    inputs, outputs = record.inputs[:, alone], record.outputs[:, alone]
    return Record(inputs, initial, outputs, None, reset=reset, weight_masks=record.weight_masks), seed


def _since_last_reset(record: Record, sequence: int) -> tuple[Record, int]:
    """The timesteps from a sequence's last reset on, and its place in the record."""
    alone, reset = _alone(record, sequence), record.reset
    if reset is None or not reset.mask[:, sequence].any():
        return record, sequence
    start = int(reset.mask[:, sequence].nonzero().max())
    began = map_state(lambda leaf: leaf[alone], reset.state)
    inputs, outputs = record.inputs[start:, alone], record.outputs[start:, alone]
    return Record(inputs, began, outputs, None, weight_masks=record.weight_masks), 0
