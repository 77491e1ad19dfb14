"""The linear recurrence h_t = a_t ∘ h_{t−1} + b_t as a blocked scan, without a loop over all timesteps.

Blocks of K timesteps run side by side, each from a zero state: h′_t = a_t ∘ h′_{t−1} + b_t. The states at the ends of
the blocks obey a recurrence of the same form, which is solved recursively. Then h_t = h′_t + (∏ a) ∘ (state before the
block), with the product over the block's timesteps up to t. Time and memory are linear in T, with about 2K calls of
torch for every factor K of length. Nothing is divided by a product of a, so a_t = 0 is allowed: there the sequence
starts again. If a is constant in time, `again` marks these timesteps.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Index = tuple[Tensor, ...]  # of the elements of a tensor, (M, …), that start again

BLOCK = 16  # K: small blocks waste calls of torch, large ones leave too few to run side by side


@torch.no_grad()
def scan(a: Tensor, b: Tensor, before: Tensor, *, reverse: bool = False, again: Tensor | None = None) -> Tensor:
    """h_1 … h_T, (T, …, H), of h_t = a_t ∘ h_{t−1} + b_t with h_0 = `before` (…, H). Not differentiable.

    a: (T, …, H), or (H,) if it is constant in time. b: (T, …, H). Both real or both complex.
    reverse: h_t = a_t ∘ h_{t+1} + b_t with h_{T+1} = `before`.
    again: mask (T, …), true for h_t = b_t without a ∘ h_{t−1}. It is only allowed if a is constant.
    """
    hidden = b.clone()
    scan_(a, hidden, before, reverse=reverse, again=again)
    return hidden


def scan_(a: Tensor, b: Tensor, before: Tensor, *, reverse: bool, again: Tensor | None = None) -> None:
    """`scan` in place of b."""
    assert again is None or constant(a)
    if constant(a):
        a = a.to(wide(b))
    whole = len(b) - len(b) % BLOCK if len(b) > 2 * BLOCK else 0  # timesteps in whole blocks, which come first
    blocks, rest = (slice(whole), slice(whole, None))
    if reverse:
        blocks, rest = (slice(len(b) - whole, None), slice(len(b) - whole))
    if whole:
        within = None if again is None else again[blocks]
        before = scan_blocks_(at_times(a, blocks), b[blocks], before, reverse=reverse, again=within)
    hidden = b[rest].unbind()
    chosen = indices(None if again is None else again[rest], len(hidden))
    for factor, each, kept in ordered(unbound(at_times(a, rest), len(hidden)), hidden, chosen, reverse=reverse):
        add_(each, factor.to(b.dtype), before, kept)
        before = each


def scan_blocks_(a: Tensor, b: Tensor, before: Tensor, *, reverse: bool, again: Tensor | None) -> Tensor:
    """`scan_` of whole blocks; returns the state after them."""
    by_place = b.unflatten(0, (-1, BLOCK)).unbind(1)  # the k-th timesteps of all blocks, (M, …, H), for k = 1 … K
    factors = unbound(a if constant(a) else a.unflatten(0, (-1, BLOCK)).transpose(0, 1), BLOCK)
    if again is not None:
        again = again.unflatten(0, (-1, BLOCK)).transpose(0, 1)
    pairs = ordered(factors, by_place, indices(again, BLOCK), reverse=reverse)
    # Products, and the carry from block to block, in double precision: rounding errors would add up over all blocks.
    product = pairs[0][0].to(wide(b))
    products = [product.to(b.dtype)]
    for (_, earlier, _), (factor, hidden, kept) in pairwise(pairs):
        add_(hidden, factor.to(b.dtype), earlier, kept)
        product = product * factor
        products.append(product.to(b.dtype))

    ends, before = pairs[-1][1].to(wide(b), copy=True), before.to(wide(b))
    scan_(product, ends, before, reverse=reverse, again=None if again is None else again.any(0))
    starts = torch.cat([ends[1:], before.unsqueeze(0)] if reverse else [before.unsqueeze(0), ends[:-1]]).to(b.dtype)
    for product, (_, hidden, kept) in zip(products, pairs[:-1]):
        if kept is not None:  # from here to the ends of their blocks, the state before the block has no effect
            starts[kept] = 0
        hidden.addcmul_(product, starts)
    pairs[-1][1].copy_(ends)
    return ends[0 if reverse else -1].to(b.dtype)


def add_(hidden: Tensor, factor: Tensor, arriving: Tensor, kept: Index | None) -> None:
    """hidden += factor ∘ arriving. The elements with the indices `kept` stay as they are."""
    before = None if kept is None else hidden[kept]
    hidden.addcmul_(factor, arriving)
    if before is not None:
        hidden[kept] = before


def indices(again: Tensor | None, length: int) -> Sequence[Index | None]:
    """For each of `length` timesteps, the indices of the elements of `again` that are true; None if none is."""
    if again is None:
        return [None] * length
    found = again.nonzero()
    numbers = again.flatten(1).sum(1).tolist()
    return [each[:, 1:].unbind(1) if len(each) else None for each in found.split(numbers)]


def constant(a: Tensor) -> bool:
    return a.dim() == 1


def at_times(a: Tensor, times: slice) -> Tensor:
    return a if constant(a) else a[times]


def unbound(a: Tensor, length: int) -> Sequence[Tensor]:
    """a_1 … a_T."""
    return [a] * length if constant(a) else a.unbind()


def ordered(*sequences: Sequence[Any], reverse: bool) -> list[tuple[Any, ...]]:
    """The timesteps of several sequences in the order of the recurrence."""
    together = list(zip(*sequences))
    return together[::-1] if reverse else together


def wide(values: Tensor) -> torch.dtype:
    """float64, or complex128 for complex values."""
    return torch.promote_types(values.dtype, torch.float64)
