"""The linear recurrence h_t = a_t ∘ h_{t−1} + b_t as a blocked scan, without a loop over all timesteps.

Blocks of K timesteps run side by side, each from a zero state: h′_t = a_t ∘ h′_{t−1} + b_t. The states at the ends of
the blocks obey a recurrence of the same form, which is solved recursively. Then h_t = h′_t + (∏ a) ∘ (state before the
block), with the product over the block's timesteps up to t. Time and memory are linear in T, with about 2K calls of
torch for every factor K of length. Nothing is divided by a product of a, so a_t = 0 is allowed: there the sequence
starts again.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

BLOCK = 16  # K: small blocks waste calls of torch, large ones leave too few to run side by side


@torch.no_grad()
def scan(a: Tensor, b: Tensor, before: Tensor, *, reverse: bool = False) -> Tensor:
    """h_1 … h_T, (T, …, H), of h_t = a_t ∘ h_{t−1} + b_t with h_0 = `before` (…, H). Not differentiable.

    a: (T, …, H), or (H,) if it is constant in time. b: (T, …, H). Both real or both complex.
    reverse: h_t = a_t ∘ h_{t+1} + b_t with h_{T+1} = `before`.
    """
    hidden = b.clone()
    scan_(a, hidden, before, reverse=reverse)
    return hidden


def scan_(a: Tensor, b: Tensor, before: Tensor, *, reverse: bool) -> None:
    """`scan` in place of b."""
    if constant(a):
        a = a.to(wide(b))
    whole = len(b) - len(b) % BLOCK if len(b) > 2 * BLOCK else 0  # timesteps in whole blocks, which come first
    blocks, rest = (slice(whole), slice(whole, None))
    if reverse:
        blocks, rest = (slice(len(b) - whole, None), slice(len(b) - whole))
    if whole:
        before = scan_blocks_(at_times(a, blocks), b[blocks], before, reverse=reverse)
    hidden = b[rest].unbind()
    for factor, each in ordered(unbound(at_times(a, rest), len(hidden)), hidden, reverse=reverse):
        before = each.addcmul_(factor.to(b.dtype), before)


def scan_blocks_(a: Tensor, b: Tensor, before: Tensor, *, reverse: bool) -> Tensor:
    """`scan_` of whole blocks; returns the state after them."""
    by_place = b.unflatten(0, (-1, BLOCK)).unbind(1)  # the k-th timesteps of all blocks, (M, …, H), for k = 1 … K
    factors = unbound(a if constant(a) else a.unflatten(0, (-1, BLOCK)).transpose(0, 1), BLOCK)
    pairs = ordered(factors, by_place, reverse=reverse)
    # Products, and the carry from block to block, in double precision: rounding errors would add up over all blocks.
    product = pairs[0][0].to(wide(b))
    products = [product.to(b.dtype)]
    for (_, earlier), (factor, hidden) in pairwise(pairs):
        hidden.addcmul_(factor.to(b.dtype), earlier)
        product = product * factor
        products.append(product.to(b.dtype))

    ends, before = pairs[-1][1].to(wide(b), copy=True), before.to(wide(b))
    scan_(product, ends, before, reverse=reverse)
    starts = torch.cat([ends[1:], before.unsqueeze(0)] if reverse else [before.unsqueeze(0), ends[:-1]]).to(b.dtype)
    for product, (_, hidden) in zip(products, pairs[:-1]):
        hidden.addcmul_(product, starts)
    pairs[-1][1].copy_(ends)
    return ends[0 if reverse else -1].to(b.dtype)


def constant(a: Tensor) -> bool:
    return a.dim() == 1


def at_times(a: Tensor, times: slice) -> Tensor:
    return a if constant(a) else a[times]


def unbound(a: Tensor, length: int) -> Sequence[Tensor]:
    """a_1 … a_T."""
    return [a] * length if constant(a) else a.unbind()


def ordered(*sequences: Sequence[Tensor], reverse: bool) -> list[tuple[Tensor, ...]]:
    """The timesteps of several sequences in the order of the recurrence."""
    together = list(zip(*sequences))
    return together[::-1] if reverse else together


def wide(values: Tensor) -> torch.dtype:
    """float64, or complex128 for complex values."""
    return torch.promote_types(values.dtype, torch.float64)
